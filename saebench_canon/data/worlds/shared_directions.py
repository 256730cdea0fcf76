"""Worlds that differ in where features point, and in what activations hold besides them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from saebench_canon.errors import CanonError
from saebench_canon.plugin.world import Place, World

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class CommonDirection(World):
    """All features share one direction, as massive dimensions make the rows of real SAEs share it.

    `shared` is the cosine of two features that have nothing else in common.
    """

    named: ClassVar[str] = "common-direction"

    shared: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.shared < 1:
            raise CanonError(f"'shared' must be a cosine from 0 to below 1, got {self.shared}")

    def directions(self, chance: Generator) -> Tensor:
        """A part along one direction, and a random part across it."""
        import torch

        from saebench_canon.kernels.cosine import unit

        common = unit(torch.randn(1, self.d, generator=chance, dtype=torch.float64))
        rows = super().directions(chance)
        across = unit(rows - (rows @ common.T) * common)
        return math.sqrt(self.shared) * common + math.sqrt(1 - self.shared) * across


@dataclass(frozen=True)
class Sinks(World):
    """The first token of each document has a vector of norm `sink`, always the same, besides."""

    named: ClassVar[str] = "sinks"

    sink: float = 100.0

    def added(self, place: Place, chance: Generator) -> Tensor:
        """The sink at position 0."""
        import torch

        from saebench_canon.kernels.cosine import unit

        direction = unit(torch.randn(1, self.d, generator=self.generator("sink")))
        first = (place.position == 0)[:, None].float()
        return first @ (self.sink * direction.float())
