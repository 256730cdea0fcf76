"""What several test modules share: small SAEs on disk, activations, suites."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pandas.core.arrays.arrow.extension_types  # noqa: F401  see below
import pyarrow.parquet  # noqa: F401
import pytest
import scipy.optimize
import scipy.stats  # noqa: F401
from planted import SUITE, write_acts, write_sae

import saebench_canon

pytest_plugins = ["pytester"]

# pytester forgets what was imported during an inner run, and neither compiled modules nor classes
# bear being imported twice: import all of them now, but for what imports sae_lens.
for _module in pkgutil.walk_packages(saebench_canon.__path__, "saebench_canon."):
    if not _module.name.startswith(("saebench_canon.trainers.", "saebench_canon.__main__")):
        import_module(_module.name)


@pytest.fixture(scope="session", autouse=True)
def _no_installed_plugins() -> Iterator[None]:
    """Tests load plugins by their files; what is installed beside them is not under test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANON_PLUGINS", "")
        yield


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
