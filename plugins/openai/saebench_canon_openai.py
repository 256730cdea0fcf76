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
AGAIN = ("activation.k", "activation.postact_fn")  # what activation_state_dict says, written twice


def _has_its_keys(files: Files) -> bool:
    """Whether the file has the keys that no other format's has."""
    try:
        return _opened(files).keys() >= KEYS
    except CanonError:
        if files.path.is_file() and not any(files.folder.glob("*.json")):
            raise  # damaged, and other formats' .pt files lie beside a configuration
        return False


@checkpoint("openai", files=["*.pt"], claims=_has_its_keys)
def openai(files: Files) -> Parameters:
    """Files of openai/sparse_autoencoder for GPT-2 small: v5 (TopK), v1 and v4 (ReLU)."""
    w = _opened(files)
    w.ignore(*COUNTS, *AGAIN)
    name = w.get("activation", "ReLU")
    shape: dict[str, Any] = {"activation": "relu"}
    if name == "TopK":
        state = w["activation_state_dict"]
        if (after := state.get("postact_fn", "ReLU")) != "ReLU":
            raise CanonError(
                f"postact_fn is {after!r}, so its codes can be negative and a latent has no one "
                "direction",
                where=str(w.path),
            )
        # its loader normalises the input exactly where the activation is TopK
        shape = {"activation": "topk", "k": state["k"], "normalize": "layer_norm"}
    elif name != "ReLU":
        raise CanonError(
            f"activation is {name!r}, and TopK and ReLU alone have a canonical form",
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


def _opened(files: Files) -> Tensors:
    found = files.find("*.pt")
    if found is None:
        raise CanonError("it is not one .pt file, nor a folder of just one", where=str(files.path))
    return files.torch(found.name)


@hookimpl
def canon_adapters() -> list[CheckpointAdapter]:
    """The adapter of the scheme `openai`."""
    return [openai]


@hookimpl
def canon_claim(path: Path) -> str | None:
    """The ref of a file whose keys are this format's, or of a folder that holds just it."""
    return openai.claim(path)
