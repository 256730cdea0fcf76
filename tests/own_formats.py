"""Formats of one function each, as in a plugin, and SAEs written in them.

Torch is imported only when SAEs are written: `check_adapter` checks the imports of this module.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saebench_canon.saes.checkpoint import CheckpointAdapter, Parameters, checkpoint
from saebench_canon.saes.files import Files

if TYPE_CHECKING:
    import torch

FORMS = ["npz-relu", "pt-topk", "st-batch"]
D, M = 6, 10


@checkpoint("npz-relu", files=["weights.npz"])
def npz_relu(files: Files) -> Parameters:
    """ReLU SAEs in a .npz file."""
    w = files.npz("weights.npz")
    return Parameters(W_enc=w["enc"].T, b_enc=w["bias"], W_dec=w["dec"], b_dec=w["mean"])


@checkpoint("pt-topk", files=["ae.pt", "config.json"])
def pt_topk(files: Files) -> Parameters:
    """Top-k SAEs in a file of torch.save."""
    config, w = files.json("config.json"), files.torch("ae.pt")
    return Parameters(
        W_enc=w["encoder.weight"].T,
        b_enc=w["encoder.bias"],
        W_dec=w["decoder.weight"].T,
        b_dec=w["b_dec"],
        activation="topk",
        k=config["k"],
        apply_b_dec_to_input=True,
    )


@checkpoint("st-batch", files=["sae.safetensors"])
def st_batch(files: Files) -> Parameters:
    """BatchTopK SAEs that store no threshold."""
    w = files.safetensors("sae.safetensors")
    return Parameters(
        W_enc=w["W_enc"], b_enc=w["b_enc"], W_dec=w["W_dec"], b_dec=w["b_dec"],
        activation="batchtopk", k=3,
    )  # fmt: skip


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    import torch

    g = torch.Generator().manual_seed(seed)
    return {
        "W_enc": torch.randn(D, M, generator=g),
        "b_enc": torch.randn(M, generator=g),
        "W_dec": 3 * torch.randn(M, D, generator=g),
        "b_dec": torch.randn(D, generator=g),
    }


def write(folder: Path, form: str, **changed: torch.Tensor) -> CheckpointAdapter:
    import torch
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    w = weights() | changed
    if form == "npz-relu":
        arrays = {"enc": w["W_enc"].T, "bias": w["b_enc"], "dec": w["W_dec"], "mean": w["b_dec"]}
        extra = {key: tensor for key, tensor in changed.items() if key not in weights()}
        np.savez(folder / "weights.npz", **{k: v.numpy() for k, v in (arrays | extra).items()})
        return npz_relu
    if form == "pt-topk":
        state = {
            "encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"],
            "decoder.weight": w["W_dec"].T, "b_dec": torch.nn.Parameter(w["b_dec"]),
        }  # fmt: skip
        torch.save(state, folder / "ae.pt")
        (folder / "config.json").write_text(json.dumps({"k": 3}))
        return pt_topk
    save_file(w, folder / "sae.safetensors")
    return st_batch
