"""The files of a checkpoint, by name or by pattern, and folders of single files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_formats import weights
from safetensors.torch import save_file

from saebench_canon.errors import CanonError
from saebench_canon.plugin.hookspecs import hookimpl
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import load_registry
from saebench_canon.saes.checkpoint import CheckpointAdapter, Parameters, checkpoint
from saebench_canon.saes.files import Files
from saebench_canon.suite.from_command_line import Options, suite_of_saes

WRITE: dict[str, Callable[[Path], Any]] = {
    "pt": lambda path: torch.save({"a": torch.zeros(1)}, path),
    "npz": lambda path: np.savez(path, a=np.zeros(1, np.float32)),
    "safetensors": lambda path: save_file({"a": torch.zeros(1)}, path),
    "json": lambda path: path.write_text(json.dumps({"a": 1})),
}


def opened(files: Files, suffix: str, name: str) -> Any:
    reader = {"pt": "torch"}.get(suffix, suffix)
    return getattr(files, reader)(name)


@pytest.mark.parametrize("suffix", WRITE)
def test_a_pattern_opens_the_one_file_that_matches(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"step-[1].{suffix}"
    WRITE[suffix](path)
    (tmp_path / "other.txt").write_text("")
    for start in (tmp_path, path):
        for name in (f"*.{suffix}", f"step*.{suffix}", path.name):
            assert list(opened(Files(start), suffix, name)) == ["a"]
            assert Files(start).has(name)


@pytest.mark.parametrize("suffix", WRITE)
def test_a_named_file_that_matches_is_the_one_among_many(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        WRITE[suffix](path)
    opened(Files(paths[1]), suffix, f"*.{suffix}")
    with pytest.raises(CanonError, match=rf"2 files match \*\.{suffix} .*: a\.{suffix}, b\."):
        opened(Files(tmp_path), suffix, f"*.{suffix}")


@pytest.mark.parametrize("suffix", WRITE)
@pytest.mark.parametrize("pattern", [False, True])
def test_what_is_not_there_says_what_is(tmp_path: Path, suffix: str, pattern: bool) -> None:
    name = f"*.{suffix}" if pattern else f"weights.{suffix}"
    with pytest.raises(CanonError, match=r"the folder has no [^.]*\.\w+ \([^)]*\)$"):
        opened(Files(tmp_path), suffix, name)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "inner").mkdir()
    with pytest.raises(CanonError, match=r"the folder has no .*\. It has notes\.txt\.$"):
        opened(Files(tmp_path), suffix, name)
    assert not Files(tmp_path).has(name)


def test_a_pattern_follows_no_link_out_of_the_folder(tmp_path: Path) -> None:
    WRITE["pt"](tmp_path / "x.pt")
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "link.pt").symlink_to(tmp_path / "x.pt")
    with pytest.raises(CanonError, match=r"link\.pt is a link to a file outside the folder"):
        Files(tmp_path / "sae").torch("*.pt")


def claims(files: Files) -> bool:
    return "W_enc" in files.torch("*.pt")


@checkpoint("plain", files=["*.pt"], claims=claims)
def plain(files: Files) -> Parameters:
    """One file of torch.save for each SAE."""
    w = files.torch("*.pt")
    return Parameters(W_enc=w["W_enc"], b_enc=w["b_enc"], W_dec=w["W_dec"], b_dec=w["b_dec"])


class Plugin:
    """The plugin of the format above."""

    @hookimpl
    def canon_adapters(self) -> list[CheckpointAdapter]:
        return [plain]

    @hookimpl
    def canon_claim(self, path: Path) -> str | None:
        return plain.claim(path)


def paths_of(folder: Path) -> list[str]:
    registry = load_registry(installed=False)
    registry.manager.register(Plugin())
    _, names, _ = suite_of_saes([str(folder)], Options("fidelity"), registry)
    return [name.rpartition("/")[2] for name in names]


def test_a_folder_offers_each_file_that_an_adapter_claims(tmp_path: Path) -> None:
    for index in (10, 2, 1):
        torch.save(weights(index), tmp_path / f"sae_{index}.pt")
    torch.save({"optimizer": torch.zeros(1)}, tmp_path / "optimizer.pt")
    torch.save(weights(4), tmp_path / "._sae_1.pt")
    (tmp_path / "config.json").write_text("{}")
    assert paths_of(tmp_path) == ["sae_1.pt", "sae_2.pt", "sae_10.pt"]


def test_files_and_folders_of_checkpoints_may_stand_side_by_side(tmp_path: Path) -> None:
    for index in (1, 2):
        torch.save(weights(index), tmp_path / f"sae_{index}.pt")
    (tmp_path / "inner").mkdir()
    for index in (3, 4):
        torch.save(weights(index), tmp_path / "inner" / f"sae_{index}.pt")
    assert paths_of(tmp_path) == [f"sae_{index}.pt" for index in (1, 2, 3, 4)]


def test_the_seeds_of_files_are_those_in_their_names(tmp_path: Path) -> None:
    for seed in (7, 3):
        torch.save(weights(seed), tmp_path / f"seed_{seed}.pt")
    registry = load_registry(installed=False)
    registry.manager.register(Plugin())
    text, *_ = suite_of_saes([str(tmp_path)], Options("fidelity"), registry)
    assert 'name = "w10-s3"' in text
    assert 'name = "w10-s7"' in text


def test_a_suite_that_names_the_folder_is_told_the_files(tmp_path: Path) -> None:
    for index in (1, 2):
        torch.save(weights(index), tmp_path / f"sae_{index}.pt")
    registry = load_registry(installed=False)
    registry.manager.register(Plugin())
    with pytest.raises(CanonError, match=r"Name a checkpoint in it: .*sae_1\.pt, .*sae_2\.pt\.$"):
        registry.adapter("file").describe(Ref.parse(f"file:{tmp_path}"))
