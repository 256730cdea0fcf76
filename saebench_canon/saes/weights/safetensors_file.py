"""What a safetensors file holds, read from its header without torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError, known_names
from saebench_canon.saes.weights.lazy_tensor import BLOCK, SIZES, Stored, Tensors, plausible

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_LARGEST = 100 * 2**20  # bytes of a header, the format's own limit


@dataclass(frozen=True)
class Entry:
    """One tensor of the file: its dtype, its shape, and the position of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def is_float(self) -> bool:
        """Whether its numbers are floating point numbers."""
        return "float" in self.dtype


@dataclass(frozen=True)
class SafetensorsFile:
    """A safetensors file whose header has been read."""

    path: Path
    entries: dict[str, Entry]

    def read(self, name: str) -> Tensor:
        """One of its tensors, mapped from the file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CanonError(f"{name} cannot be read ({error})", where=str(self.path)) from error
        return tensor

    def packed(self, name: str) -> int:
        """Bytes of memory, besides the file's mapped pages, that reading takes: none."""
        return 0

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of one of its tensors."""
        entry = self.entries[name]
        with self.path.open("rb") as file:
            file.seek(entry.start)
            remaining = entry.stop - entry.start
            while remaining > 0:
                block = file.read(min(remaining, BLOCK))
                if not block:
                    raise CanonError(f"the file ends within {name}", where=str(self.path))
                remaining -= len(block)
                yield block


def open_safetensors(path: Path) -> Tensors:
    """The tensors of a safetensors file, unread; raises CanonError if it is not one."""
    entries = read_header(path)
    source = SafetensorsFile(path, entries)
    return Tensors(
        path,
        {name: Stored(name, entry.shape, entry.dtype, source) for name, entry in entries.items()},
    )


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file by name; raises CanonError if it is not one."""
    where = str(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else _LARGEST
        if length >= min(_LARGEST, size):
            raise CanonError("the file is not a safetensors file, or only its start", where=where)
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise CanonError("the file is not a safetensors file", where=where) from error
    if not isinstance(header, dict):
        raise CanonError("the file is not a safetensors file", where=where)
    entries = {}
    for name, fields in header.items():
        if name != "__metadata__":
            entries[name] = _entry(name, fields, 8 + length, size, where)
    return entries


def _entry(name: str, fields: Any, first: int, size: int, where: str) -> Entry:
    """One entry of the header; raises CanonError unless the file has the bytes of its shape."""
    try:
        start, stop = fields["data_offsets"]
        shape = tuple(fields["shape"])
        if isinstance(kind := fields["dtype"], str) and kind not in DTYPES:
            raise CanonError(f"{name} is of the number format {kind!r}, which is not read",
                             where=where, hint=known_names(list(DTYPES)))  # fmt: skip
        dtype = DTYPES[kind]
        readable = plausible(shape) and plausible((start, stop), many=True)
    except (KeyError, TypeError, ValueError):
        readable = False
    if not readable:
        raise CanonError(f"the header's entry for {name} cannot be read", where=where)
    if first + stop > size:
        raise CanonError(f"the file ends before its tensor {name}", where=where)
    if stop - start != math.prod(shape) * SIZES[dtype]:
        raise CanonError(
            f"{name} should be {list(shape)} of {dtype}, but takes {stop - start} bytes",
            where=where,
        )
    return Entry(dtype, shape, first + start, first + stop)
