"""Activations in a file that is mapped into memory: as many as the disk holds."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saebench_canon.errors import StoreError
from saebench_canon.plugin.activations import Acts
from saebench_canon.saes.memory_needed import size as in_units

ACTS, DOC = "acts.npy", "doc.pt"
CHUNK = 65_536  # tokens written at once


def open_activations(path: Path) -> Tensor:
    """Activations [n, d] mapped from a .npy file; writing to them does not change the file."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def save_acts(acts: Acts, folder: Path) -> None:
    """Save activations into a folder, unless they are already mapped from it."""
    file = folder / ACTS
    if not file.exists():
        np.save(file, acts.x.numpy())
    torch.save(acts.doc, folder / DOC)


def load_acts(folder: Path) -> Acts:
    """The activations of a folder, mapped from its file."""
    doc = torch.load(folder / DOC, weights_only=True)
    return Acts(open_activations(folder / ACTS), doc)


def write_activations(path: Path, acts: Acts) -> None:
    """Write a safetensors file with `acts` and `doc`, some tokens at a time."""
    n, d = acts.x.shape
    doc = acts.doc.to(torch.int64)
    header = {
        "acts": {"dtype": "F32", "shape": [n, d], "data_offsets": [0, 4 * n * d]},
        "doc": {"dtype": "I64", "shape": [n], "data_offsets": [4 * n * d, 4 * n * d + 8 * n]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that tensors are aligned
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for part in acts.batches(CHUNK):
            file.write(part.float().contiguous().numpy().astype("<f4", copy=False).tobytes())
        file.write(doc.numpy().astype("<i8", copy=False).tobytes())


def empty(out: Path | None, shape: tuple[int, int]) -> Any:
    """Room for activations of this shape: in memory, or mapped to a new .npy file."""
    if out is None:
        return np.empty(shape, dtype=np.float32)
    array = np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):
        _reserve(out)
    return array


def _reserve(path: Path) -> None:
    """Take a mapped file's place on the disk now: a full disk later would be a SIGBUS."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise StoreError(
                f"{in_units(size)} of activations cannot be written ({error.strerror})",
                where=str(path),
                hint="Free some of the disk, lower `tokens`, or use another --store.",
            ) from None
