"""Small SAEs on disk, planted activations, and a suite of them, for several test modules."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

D = 16


def planted_acts(n: int = 600, d: int = D, features: int = 24, seed: int = 0) -> torch.Tensor:
    """Sums of a few planted directions, so that SAEs have something to find."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(features, d, generator=generator), dim=1)
    on = (torch.rand(n, features, generator=generator) < 0.1).float()
    size = 1 + torch.rand(n, features, generator=generator)
    return (on * size) @ rows + 0.1


def write_acts(path: Path, x: torch.Tensor | None = None, documents: int = 20) -> Path:
    """Activations as a file that a suite's data table can name."""
    acts = planted_acts() if x is None else x
    doc = torch.arange(len(acts)) * documents // len(acts)
    save_file({"acts": acts, "doc": doc}, path)
    return path


def write_sae(folder: Path, width: int, *, seed: int = 0, d: int = D) -> Path:
    """A random ReLU SAE in SAELens' format, rows not at unit norm, biases not zero."""
    generator = torch.Generator().manual_seed(1000 * width + seed)
    rows = torch.randn(width, d, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            "W_enc": (rows / rows.norm(dim=1, keepdim=True) ** 2).T.contiguous(),
            "b_enc": -0.3 * torch.rand(width, generator=generator),
            "W_dec": rows,
            "b_dec": 0.1 * torch.randn(d, generator=generator),
        },
        folder / "sae_weights.safetensors",
    )
    config = {
        "architecture": "standard", "d_in": d, "d_sae": width, "dtype": "float32",
        "apply_b_dec_to_input": False, "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


SUITE = """
[suite]
name = "small"

[data.planted]
file = "acts.safetensors"

[[sae]]
name = "relu-w{width}-s{seed}"
uri = "file:saes/w{width}-s{seed}"
data = "planted"
axes = { width = [24, 48], seed = [0, 1] }

[[metric]]
name = "fidelity"

[[metric]]
name = "stitching"

[[metric]]
name = "stitching"
label = "floor"
over = "all-pairs:seed"

[[metric]]
name = "meta_sae"
settings = { steps = 20, batch = 64, k = 2 }

[[metric]]
name = "seed_matching"
"""
