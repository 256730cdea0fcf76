"""Adapter: SAEs of dictionary_learning, as dictionary-learning:PATH."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from saebench_canon import (
    CanonError,
    CheckpointAdapter,
    Config,
    Files,
    Parameters,
    Stored,
    Tensors,
    checkpoint,
    hookimpl,
    nearest,
)

SUBMODULE = re.compile(r"resid_post_layer_(\d+)")  # as its training scripts name a block's output


@checkpoint("dictionary-learning", files=["ae.pt", "config.json"], calibrates=True)
def dictionary_learning(files: Files) -> Parameters:
    """SAEs of saprmarks/dictionary_learning, all seven classes, and backups of their training."""
    config = files.json("config.json")
    where = str(config.path)
    trainer = config["trainer"]
    if not isinstance(trainer, Config):
        raise CanonError("'trainer' is not an object", where=where)
    name = str(trainer["dict_class"])
    if name not in CLASSES:
        raise CanonError(
            f"dict_class {name!r} is not known", where=where, hint=nearest(name, CLASSES)
        )
    w, factor = _state_dict(files)
    location = _hook_and_model(config, trainer)
    parameters = replace(CLASSES[name](w, trainer), input_scale=1 / factor, **location)
    parameters.check()
    for key, size in (("activation_dim", parameters.d), ("dict_size", parameters.width)):
        if trainer.get(key, size) != size:
            raise CanonError(f"{key} is {trainer[key]!r}, but the weights have {size}", where=where)
    return parameters


def _state_dict(files: Files) -> tuple[Tensors, float]:
    """The state dict, and the factor by which its SAE expects activations divided.

    At the end of training, biases and threshold are scaled to unscaled activations. A backup, under
    the same file name, is written before that.
    """
    saved = files.torch("ae.pt")
    if "ae" not in saved:
        return saved, 1.0
    saved.ignore("step", "optimizer", "config")
    state, factor = saved["ae"], saved["norm_factor"]
    if not isinstance(state, Tensors):
        raise CanonError("ae is not a state dict", where=str(saved.path))
    files.opened.append(state)
    factor = factor.number() if isinstance(factor, Stored) else factor
    number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not number or not math.isfinite(factor) or factor <= 0:
        raise CanonError(f"norm_factor is {factor!r}, not a positive number", where=str(saved.path))
    return state, float(factor)


def auto_encoder(w: Tensors, trainer: Config) -> Parameters:
    """relu(W (x − bias) + b); after the April update its decoder's columns are of any norm."""
    b_enc, b_dec = w["encoder.bias"], w["bias"]
    return Parameters(**_linear(w), b_enc=b_enc, b_dec=b_dec, apply_b_dec_to_input=True)


def auto_encoder_new(w: Tensors, trainer: Config) -> Parameters:
    """relu(W x + b)."""
    return Parameters(**_linear(w), b_enc=w["encoder.bias"], b_dec=w["decoder.bias"])


def gated(w: Tensors, trainer: Config) -> Parameters:
    """1[z + gate > 0] · relu(e^r z + mag) with z = W (x − decoder_bias)."""
    return Parameters(
        **_linear(w),
        b_dec=w["decoder_bias"],
        b_gate=w["gate_bias"],
        b_mag=w["mag_bias"],
        r_mag=w["r_mag"],
        activation="gated",
        apply_b_dec_to_input=True,
    )


def jump_relu(w: Tensors, trainer: Config) -> Parameters:
    """relu(z) where z = W x + b is above the latent's threshold."""
    return Parameters(**_raw(w), activation="jumprelu", threshold=w["threshold"])


def top_k(w: Tensors, trainer: Config) -> Parameters:
    """The k largest of relu(W (x − b_dec) + b) of each token; a stored threshold is ignored."""
    w.ignore("threshold")
    return Parameters(
        **_linear(w),
        b_enc=w["encoder.bias"],
        b_dec=w["b_dec"],
        activation="topk",
        k=_k(w, trainer),
        apply_b_dec_to_input=True,
    )


def batch_top_k(w: Tensors, trainer: Config) -> Parameters:
    """relu(W (x − b_dec) + b) where above the one threshold."""
    b_enc, b_dec = w["encoder.bias"], w["b_dec"]
    return Parameters(**_linear(w), b_enc=b_enc, b_dec=b_dec, **_level(w, trainer))


def matryoshka(w: Tensors, trainer: Config) -> Parameters:
    """The same with all groups of latents active, as in upstream's inference."""
    w.ignore("group_sizes")
    return Parameters(**_raw(w), **_level(w, trainer), architecture="matryoshka_batchtopk")


CLASSES: dict[str, Callable[[Tensors, Config], Parameters]] = {
    "AutoEncoder": auto_encoder,
    "AutoEncoderNew": auto_encoder_new,
    "GatedAutoEncoder": gated,
    "JumpReluAutoEncoder": jump_relu,
    "AutoEncoderTopK": top_k,
    "BatchTopKSAE": batch_top_k,
    "MatryoshkaBatchTopKSAE": matryoshka,
}


def _linear(w: Tensors) -> dict[str, Any]:
    return {"W_enc": w["encoder.weight"].T, "W_dec": w["decoder.weight"].T}


def _raw(w: Tensors) -> dict[str, Any]:
    return {name: w[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}


def _level(w: Tensors, trainer: Config) -> dict[str, Any]:
    """Selection over a batch; training that ends before step 1000 leaves a negative threshold."""
    threshold = w["threshold"]
    return {
        "activation": "batchtopk",
        "threshold": None if threshold.number() < 0 else threshold,
        "k": _k(w, trainer),
        "apply_b_dec_to_input": True,
    }


def _k(w: Tensors, trainer: Config) -> float:
    """The k of the weights' file, which annealing changes; files of old versions have none."""
    if "k" not in w:
        configured: float = trainer["k"]
        return configured
    k: float = w["k"].number()
    return int(k) if k.is_integer() else k


def _hook_and_model(config: Config, trainer: Config) -> dict[str, Any]:
    """The hook and model of the activations, as far as the configuration names them."""
    buffer, model = config.get("buffer"), trainer.get("lm_name")
    io = buffer.get("io", "out") if isinstance(buffer, Config) else "out"
    if io == "in_and_out":
        raise CanonError(
            "it is a transcoder (io is 'in_and_out'): it predicts a module's output from its "
            "input, and reconstructs neither",
            where=str(config.path),
        )
    named = SUBMODULE.fullmatch(str(trainer.get("submodule_name")))
    layer = None if named is None else int(named[1])
    certain = io == "out" and layer is not None and trainer.get("layer", layer) == layer
    return {
        "hook": f"blocks.{layer}.hook_resid_post" if certain else None,
        "model": model if isinstance(model, str) else None,
        "center_writing_weights": False,
    }


@hookimpl
def canon_adapters() -> list[CheckpointAdapter]:
    """The adapter of the scheme `dictionary-learning`."""
    return [dictionary_learning]


@hookimpl
def canon_claim(path: Path) -> str | None:
    """The ref of a trainer's folder, or of a file in it."""
    return dictionary_learning.claim(path)
