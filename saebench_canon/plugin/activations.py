"""The activations of one data source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Acts:
    """Activations `x` [n, d], float32 or memory-mapped, and each token's document `doc` [n]."""

    x: Tensor
    doc: Tensor

    @property
    def d(self) -> int:
        """The dimension of the activations."""
        return int(self.x.shape[1])

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def batches(self, size: int) -> Iterator[Tensor]:
        """The activations in order, `size` tokens at a time."""
        for start in range(0, len(self), size):
            yield self.x[start : start + size]
