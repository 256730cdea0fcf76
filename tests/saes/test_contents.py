"""What is said of a file or folder whose format no plugin knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saebench_canon.errors import UNPRINTABLE, CanonError
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import load_registry
from saebench_canon.saes.weights.contents import LONGEST, NAMED, contents

W = {"enc": torch.zeros(3, 2), "scale": torch.ones(2, dtype=torch.float16)}


def npz(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})


WRITERS: dict[str, Callable[[Path, dict[str, torch.Tensor]], None]] = {
    ".safetensors": lambda path, tensors: save_file(tensors, path),
    ".npz": npz,
    ".pt": lambda path, tensors: torch.save(tensors, path),
    ".ckpt": lambda path, tensors: torch.save(tensors, path),
    "": lambda path, tensors: torch.save(tensors, path),
}


def refusal(path: Path) -> str:
    """What a user reads who names the path."""
    with pytest.raises(CanonError) as caught:
        load_registry(installed=False).adapter("file").describe(Ref.parse(f"file:{path}"))
    return str(caught.value)


@pytest.mark.parametrize("suffix", WRITERS)
def test_tensors_are_listed_with_shapes_and_number_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    WRITERS[suffix](path, W)
    message = refusal(path)
    assert f"the file '{path}' holds no checkpoint of a known format" in message
    assert "It holds enc [3, 2] float32, scale [2] float16." in message
    assert "`new adapter` writes a new one" in message


@pytest.mark.parametrize("suffix", WRITERS)
def test_only_the_first_tensors_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    WRITERS[suffix](path, {f"t{index:02}": torch.zeros(1) for index in range(NAMED + 5)})
    sentence = contents(path)
    assert sentence.count("float32") == NAMED
    assert sentence.endswith("t09 [1] float32 and 5 more.")


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\nERROR: b", "a\u202eb", "a" * 5000, "\x9b2J"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_names_are_printed_safely(tmp_path: Path, suffix: str, name: str) -> None:
    path = tmp_path / f"x{suffix}"
    WRITERS[suffix](path, {name: torch.zeros(1)})
    sentence = contents(path)
    assert not UNPRINTABLE.search(sentence)
    assert "\n" not in sentence
    assert len(sentence) < LONGEST + 60


def test_inner_dictionaries_and_other_values_are_named(tmp_path: Path) -> None:
    torch.save({"model": {"enc": torch.zeros(3, 2)}, "step": 3, "name": "x"}, tmp_path / "x.pt")
    assert contents(tmp_path / "x.pt") == (
        "It holds model/enc [3, 2] float32, step (int), name (str)."
    )


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "torn.pt": (b"PK\x03\x04 torn", "It cannot be read: the file is no file of torch.save"),
    "torn.npz": (b"PK\x03\x04 torn", "It cannot be read: the file is no .npz file"),
    "torn.safetensors": (b"\0" * 4, "It cannot be read: the file is not a safetensors file"),
    "lfs.pt": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "notes.txt": (b"hello", "It is none of .pt, "),
    "empty": (b"", "It is none of .pt, "),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str) -> None:
    data, sentence = UNREADABLE[name]
    (tmp_path / name).write_bytes(data)
    assert sentence in refusal(tmp_path / name)


def test_a_pickle_of_objects_says_what_it_asks_for(tmp_path: Path) -> None:
    torch.save(Path("x"), tmp_path / "x.pt")
    assert "the pickle asks for pathlib" in contents(tmp_path / "x.pt")


def test_a_folder_says_its_files_and_what_the_first_weights_are(tmp_path: Path) -> None:
    assert contents(tmp_path) == "It is empty."
    (tmp_path / "inner").mkdir()
    (tmp_path / "config.json").write_text("{}")
    torch.save(W, tmp_path / "w.pt")
    assert contents(tmp_path) == (
        "It holds config.json, inner/, w.pt. w.pt holds enc [3, 2] float32, scale [2] float16."
    )
    assert contents(tmp_path) in refusal(tmp_path)


def test_a_folder_without_permission_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert contents(tmp_path) == "It cannot be read (Permission denied)."
