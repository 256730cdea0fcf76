"""What several test modules share: small SAEs on disk, activations, suites."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pandas.core.arrays.arrow.extension_types  # noqa: F401  see below
import pyarrow.parquet  # noqa: F401
import pytest
import scipy.optimize
import scipy.stats  # noqa: F401
import torch
from safetensors.torch import save_file

import saebench_canon

pytest_plugins = ["pytester"]

# pytester forgets what was imported during an inner run, and neither compiled modules nor classes
# bear being imported twice: import all of them now, but for what imports sae_lens.
for _module in pkgutil.walk_packages(saebench_canon.__path__, "saebench_canon."):
    if not _module.name.startswith(("saebench_canon.trainers.", "saebench_canon.__main__")):
        import_module(_module.name)

D = 16


@pytest.fixture(scope="session", autouse=True)
def _no_installed_plugins() -> Iterator[None]:
    """Tests load plugins by their files; what is installed beside them is not under test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANON_PLUGINS", "")
        yield


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


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite file of four loaded SAEs and every metric, in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_acts(tmp_path / "acts.safetensors")
    for width in (24, 48):
        for seed in (0, 1):
            write_sae(tmp_path / "saes" / f"w{width}-s{seed}", width, seed=seed)
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def write_suite(tmp_path: Path) -> Callable[[str], Path]:
    """Write TOML text as a suite file."""

    def write(text: str, name: str = "suite.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
