"""Adapter: SAEs of EleutherAI's sparsify, as sparsify:PATH."""

from __future__ import annotations

import re
from pathlib import Path

from saebench_canon import (
    CanonError,
    CheckpointAdapter,
    Config,
    Files,
    Parameters,
    checkpoint,
    hookimpl,
)

SEED = re.compile(r"seed\d+")
BLOCK = re.compile(r"(?:layers|h)\.(\d+)")
MODULE = re.compile(r"[A-Za-z_]\w*(\.\w+)*\.\d+(\.\w+)*")  # a module inside a numbered block
REFUSED = {
    "transcode": "it is a transcoder: it predicts a module's output from its input",
    "skip_connection": "it adds a linear map of its input (W_skip) to what its latents give",
    "signed": "codes can be negative, so a latent does not have a single direction",
}


@checkpoint("sparsify", files=["sae.safetensors", "cfg.json"])
def sparsify(files: Files) -> Parameters:
    """SAEs of EleutherAI/sparsify: the k largest of relu(W (x − b_dec) + b) of each token."""
    config = files.json("cfg.json")
    _refuse(config)
    w = files.safetensors("sae.safetensors")
    if "W_skip" in w:
        raise CanonError(REFUSED["skip_connection"], where=str(w.path))
    parameters = Parameters(
        W_enc=w["encoder.weight"].T,
        b_enc=w["encoder.bias"],
        W_dec=w["W_dec"],
        b_dec=w["b_dec"],
        activation="topk",
        k=config["k"],
        apply_b_dec_to_input=True,
        hook=_hook(files.folder.absolute()),
        center_writing_weights=False,
    )
    parameters.check()
    _check_sizes(config, parameters)
    return parameters


def _refuse(config: Config) -> None:
    """Raise CanonError, with the reason, for an SAE that has no canonical form."""
    where = str(config.path)
    for key, reason in REFUSED.items():
        if config.get(key, False):
            raise CanonError(f"{reason} ({key} is {config[key]!r})", where=where)
    activation = config.get("activation", "topk")
    if activation == "groupmax":
        raise CanonError(
            "activation is 'groupmax': it keeps the largest latent of each of k groups, "
            "which no canonical encoder does",
            where=where,
        )
    if activation != "topk":
        raise CanonError(f"activation is {activation!r}, and only topk is known", where=where)


def _check_sizes(config: Config, parameters: Parameters) -> None:
    """Refuse a configuration of another size than the weights; `num_latents` 0 is d · expansion."""
    d, width = parameters.d, parameters.width
    sizes: dict[str, float] = {"d_in": d, "expansion_factor": width / d}
    if config.get("num_latents", 0):
        sizes = {"d_in": d, "num_latents": width}
    for key, size in sizes.items():
        if config[key] != size:
            fault = f"{key} is {config[key]!r}, but that of the weights is {size:.12g}"
            raise CanonError(fault, where=str(config.path))


def _hook(folder: Path) -> str | None:
    """The hook after which a checkpoint's folder is named, a module of the base model."""
    name = folder.parent.name if SEED.fullmatch(folder.name) else folder.name
    if block := BLOCK.fullmatch(name):
        return f"blocks.{block[1]}.hook_resid_post"
    return name if MODULE.fullmatch(name) else None


@hookimpl
def canon_adapters() -> list[CheckpointAdapter]:
    """The adapter of the scheme `sparsify`."""
    return [sparsify]


@hookimpl
def canon_claim(path: Path) -> str | None:
    """The ref of a hookpoint's or a seed's folder, or of a file in it."""
    return sparsify.claim(path)
