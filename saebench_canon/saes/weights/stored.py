"""A tensor that still lies in its file: name, shape and number format, and how to read it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from saebench_canon.errors import CanonError, nearest

if TYPE_CHECKING:
    from torch import Tensor

SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2,
    "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
DIMENSIONS = 8  # of a tensor, at most
LARGEST = 2**48  # entries or bytes
BLOCK = 2**20  # bytes read at once


def plausible(numbers: Sequence[Any], *, many: bool = False) -> bool:
    """Whether these are sizes that a file can have: looked at before they are multiplied."""
    few = many or len(numbers) <= DIMENSIONS
    return few and all(type(each) is int and 0 <= each <= LARGEST for each in numbers)


class Source(Protocol):
    """A file of weights that has been looked into."""

    @property
    def path(self) -> Path:
        """The file."""

    def read(self, name: str) -> Tensor:
        """One of its tensors, mapped from the file where its format allows."""

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of one of its tensors, a bounded number at a time."""

    def packed(self, name: str) -> int:
        """Bytes of memory beside the file's own pages that reading a tensor takes."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file, not read yet."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # a key of SIZES
    source: Source
    transposed: bool = False
    logarithm: bool = False  # the file holds its logarithm

    @property
    def T(self) -> Stored:  # noqa: N802  as torch and NumPy call it
        """The same tensor with its dimensions reversed."""
        return replace(self, shape=self.shape[::-1], transposed=not self.transposed)

    def exp(self) -> Stored:
        """The tensor whose logarithm the file holds."""
        return replace(self, logarithm=True)

    @property
    def nbytes(self) -> int:
        """The bytes that it takes."""
        return math.prod(self.shape) * SIZES[self.dtype]

    def tensor(self) -> Tensor:
        """The tensor itself."""
        read = self.source.read(self.name)
        if self.transposed:
            read = read.T
        if tuple(read.shape) != self.shape:
            raise self.wrong(f"is {list(read.shape)} where its file says {list(self.shape)}")
        if not self.logarithm:
            return read
        return (read if SIZES[self.dtype] >= 4 else read.float()).exp()  # halves lose digits

    def number(self) -> float:
        """The one number that the file holds."""
        import numpy as np

        if math.prod(self.shape) != 1:
            raise self.wrong(f"has shape {list(self.shape)}, not one number")
        raw = b"".join(self.source.blocks(self.name))[: SIZES[self.dtype]]
        if self.dtype == "bfloat16":
            return float(np.frombuffer(b"\0\0" + raw, "<f4")[0])
        return float(np.frombuffer(raw, np.dtype(self.dtype).newbyteorder("<"))[0])

    def wrong(self, what: str) -> CanonError:
        """The error that says something of this tensor."""
        return CanonError(f"{self.name} {what}", where=str(self.source.path))


class Tensors(dict[str, Any]):
    """What a file holds by name; a name that it lacks is an error naming file and key.

    It remembers what was asked for: what no reader asks for is no part of the format.
    """

    def __init__(self, path: Path, held: Mapping[str, Any]) -> None:
        super().__init__(held)
        self.path = path
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """What the file holds under the name."""
        self.asked.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """What the file holds under the name, or the default."""
        return self[name] if name in self else default  # noqa: SIM401  it remembers

    def __missing__(self, name: str) -> Any:
        there = ", ".join(sorted(map(str, self))) or "nothing"
        hint = nearest(name, map(str, self))
        raise CanonError(
            f"it has no {name}",
            where=str(self.path),
            hint=hint if hint.startswith("Did") else f"It holds {there}.",
        )

    def ignore(self, *names: str) -> None:
        """Let these be, whether they are there or not."""
        self.asked.update(names)

    @property
    def unasked(self) -> list[str]:
        """What nobody asked for."""
        return sorted(str(name) for name in self if name not in self.asked)
