"""Adapter: autoencoders of OpenAI's sparse_autoencoder, as openai:PATH or by bare path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saebench_canon import (
    CanonError,
    CheckpointAdapter,
    Files,
    Parameters,
    Tensors,
    checkpoint,
    hookimpl,
)

KEYS = frozenset({"pre_bias", "latent_bias", "encoder.weight"})
COUNTS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
DUPLICATES = ("activation.k", "activation.postact_fn")  # also in activation_state_dict


def _has_its_keys(files: Files) -> bool:
    """Whether the file has this format's keys, which no other format has."""
    try:
        return _state_dict(files).keys() >= KEYS
    except CanonError:
        if files.path.is_file() and not any(files.folder.glob("*.json")):
            raise  # damaged, and other formats save a configuration with their .pt files
        return False


@checkpoint("openai", files=["*.pt"], claims=_has_its_keys)
def openai(files: Files) -> Parameters:
    """Files of openai/sparse_autoencoder for GPT-2 small: v5 (TopK), v1 and v4 (ReLU)."""
    w = _state_dict(files)
    w.ignore(*COUNTS, *DUPLICATES)
    name = w.get("activation", "ReLU")
    shape: dict[str, Any] = {"activation": "relu"}
    if name == "TopK":
        state = w["activation_state_dict"]
        if (after := state.get("postact_fn", "ReLU")) != "ReLU":
            raise CanonError(
                f"postact_fn is {after!r}, so codes can be negative and a latent does not have "
                "a single direction",
                where=str(w.path),
            )
        # its loader normalises the input exactly where the activation is TopK
        shape = {"activation": "topk", "k": state["k"], "normalize": "layer_norm"}
    elif name != "ReLU":
        raise CanonError(
            f"activation is {name!r}, and only TopK and ReLU have a canonical form",
            where=str(w.path),
        )
    else:
        w.ignore("activation_state_dict")
    tied = "decoder.linear.weight" in w
    return Parameters(
        W_enc=w["encoder.weight"].T,
        W_dec=w["decoder.linear.weight"] if tied else w["decoder.weight"].T,
        b_dec=w["pre_bias"],
        b_enc=w["latent_bias"],
        apply_b_dec_to_input=True,
        center_writing_weights=False,
        **shape,
    )


def _state_dict(files: Files) -> Tensors:
    file = files.find("*.pt")
    if file is None:
        raise CanonError(
            "it is neither a .pt file nor a folder with exactly one", where=str(files.path)
        )
    return files.torch(file.name)


@hookimpl
def canon_adapters() -> list[CheckpointAdapter]:
    """The adapter of the scheme `openai`."""
    return [openai]


@hookimpl
def canon_claim(path: Path) -> str | None:
    """The ref of a file with this format's keys, or of a folder with that one .pt file."""
    return openai.claim(path)
