"""What an unknown file or folder holds, in a few words for an error."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from saebench_canon.errors import CanonError, one_line
from saebench_canon.saes.weights.lazy_tensor import Stored
from saebench_canon.saes.weights.lfs import refuse_pointer
from saebench_canon.saes.weights.npz_file import open_npz
from saebench_canon.saes.weights.safetensors_file import open_safetensors
from saebench_canon.saes.weights.torch_file import open_torch

NAMED = 10  # tensors or files
LONGEST = 60  # letters of a name
TORCH = (".pt", ".pth", ".bin", ".ckpt")
WEIGHTS = (*TORCH, ".npz", ".safetensors")


def contents(path: Path) -> str:
    """A sentence: the tensors of a file with shapes and number formats, the names in a folder."""
    try:
        return _of_folder(path) if path.is_dir() else _of_file(path, "It")
    except OSError as error:
        return f"It cannot be read ({error.strerror or error})."


def _of_folder(folder: Path) -> str:
    entries = sorted(folder.iterdir())
    if not entries:
        return "It is empty."
    names = [_short(f"{entry.name}/" if entry.is_dir() else entry.name) for entry in entries]
    weights = [entry for entry in entries if entry.suffix.lower() in WEIGHTS and entry.is_file()]
    first = f" {_of_file(weights[0], _short(weights[0].name))}" if weights else ""
    return f"It holds {_listed(names)}.{first}"


def _of_file(path: Path, subject: str) -> str:
    suffix = path.suffix.lower()
    if suffix not in WEIGHTS and not zipfile.is_zipfile(path):
        return f"{subject} is none of {', '.join(WEIGHTS)}, the files that hold tensors."
    reader = {".npz": open_npz, ".safetensors": open_safetensors}.get(suffix, open_torch)
    try:
        refuse_pointer(path)
        lines = list(_tensors(reader(path), ""))
    except CanonError as error:
        return f"{subject} cannot be read: {one_line(error.what).rstrip('.')}."
    return f"{subject} holds {_listed(lines) or 'nothing'}."


def _tensors(values: Mapping[str, object], above: str) -> Iterator[str]:
    """Each entry with its shape and number format, those of inner dictionaries too."""
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Stored):
            yield f"{_short(name)} {list(value.shape)} {value.dtype}"
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{name}/")
        else:
            yield f"{_short(name)} ({type(value).__name__})"


def _short(name: str) -> str:
    """A name as one printable line, without its middle if it is long."""
    text = one_line(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
