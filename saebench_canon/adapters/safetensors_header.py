"""What a safetensors file holds, read from its header without torch."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from saebench_canon.errors import CanonError

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_LARGEST = 100 * 2**20  # bytes of a header, the format's own limit


@dataclass(frozen=True)
class Entry:
    """One tensor of the file: its dtype, its shape, and where its bytes lie."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file by name; raises CanonError when it is not one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else _LARGEST
        if length >= min(_LARGEST, size):
            raise CanonError("this is not a safetensors file, or only its start", where=str(path))
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise CanonError("this is not a safetensors file", where=str(path)) from error
    entries = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, stop = entry["data_offsets"]
        if 8 + length + stop > size:
            raise CanonError(f"the file ends before its tensor {name}", where=str(path))
        entries[name] = Entry(
            DTYPES.get(entry["dtype"], entry["dtype"]),
            tuple(entry["shape"]),
            8 + length + start,
            8 + length + stop,
        )
    return entries
