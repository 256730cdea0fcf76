"""A tensor that is still in its file: name, shape, number format, and how to read it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

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
    """Whether these are sizes that a file can have; checked before they are multiplied."""
    few = many or len(numbers) <= DIMENSIONS
    return few and all(type(number) is int and 0 <= number <= LARGEST for number in numbers)


class WeightFile(Protocol):
    """A file of weights whose header has been read."""

    @property
    def path(self) -> Path:
        """The file."""

    def read(self, name: str) -> Tensor:
        """One of its tensors, mapped from the file where its format allows."""

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of one of its tensors, a bounded number at a time."""

    def packed(self, name: str) -> int:
        """Bytes of memory, besides the file's mapped pages, that reading a tensor takes."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file, not read yet."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # a key of SIZES
    source: WeightFile
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
        tensor = self.source.read(self.name)
        if self.transposed:
            tensor = tensor.T
        if tuple(tensor.shape) != self.shape:
            raise self.wrong(f"is {list(tensor.shape)} where its file says {list(self.shape)}")
        if not self.logarithm:
            return tensor
        return (tensor if SIZES[self.dtype] >= 4 else tensor.float()).exp()  # halves lose digits

    def number(self) -> float:
        """The one number that the file holds."""
        import numpy as np

        if math.prod(self.shape) != 1:
            raise self.wrong(f"has shape {list(self.shape)}, not one number")
        raw = b"".join(self.source.blocks(self.name))[: SIZES[self.dtype]]
        if self.dtype == "bfloat16":
            return float(np.frombuffer(b"\0\0" + raw, "<f4")[0])
        return float(np.frombuffer(raw, np.dtype(self.dtype).newbyteorder("<"))[0])

    def _unread(self, *_: object) -> NoReturn:
        raise CanonError(
            f"{self.name} is still in its file, where nothing can be computed with it",
            where=str(self.source.path),
            hint="Parameters takes tensors as they are stored, their .T and .exp(), and says the "
            "rest itself: activation_mean, input_scale, apply_b_dec_to_input. What needs more is "
            "an adapter of its own (docs/plugins.md).",
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = (
        _unread
    )
    __matmul__ = __rmatmul__ = __pow__ = __neg__ = __getitem__ = __float__ = _unread
    __array_ufunc__ = None  # or NumPy would compute with an array of one object

    def wrong(self, fault: str) -> CanonError:
        """The error that names this tensor, its fault and its file."""
        return CanonError(f"{self.name} {fault}", where=str(self.source.path))


class Tensors(dict[str, Any]):
    """What a file holds by name; a missing name is an error that names file and key.

    It remembers which names were requested: the others are no part of the format.
    """

    def __init__(self, path: Path, contents: Mapping[str, Any]) -> None:
        super().__init__(contents)
        self.path = path
        self.requested: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """What the file holds under the name."""
        self.requested.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """What the file holds under the name, or the default."""
        return self[name] if name in self else default  # noqa: SIM401  it remembers

    def __missing__(self, name: str) -> Any:
        hint = nearest(name, map(str, self)) or "It holds nothing."
        raise CanonError(f"the file has no {name}", where=str(self.path), hint=hint)

    def ignore(self, *names: str) -> None:
        """Accept these names, whether the file has them or not, without using them."""
        self.requested.update(names)

    @property
    def unused(self) -> list[str]:
        """The names that were neither requested nor ignored."""
        return sorted(str(name) for name in self if name not in self.requested)
