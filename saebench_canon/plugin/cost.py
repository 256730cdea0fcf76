"""The cost of a case, as its metric estimates it: multiply-adds, seconds and bytes.

    def cost(size: CaseSize) -> Cost:
        (sae,) = size.saes
        return Cost(Work(products=size.tokens * sae.l0 * sae.d))

    @metric(scores=[…], of="sae", version=1, cost=cost)

`plan` calls it, so such a function must not import torch or anything else that is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Work:
    """Multiply-adds, and seconds for everything else."""

    products: float = 0.0
    fixed: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.products + other.products, self.fixed + other.fixed)

    def times(self, count: float) -> Work:
        """The same work, `count` times."""
        return Work(self.products * count, self.fixed * count)

    def seconds(self, speed: float) -> float:
        """Seconds at `speed` multiply-adds per second."""
        return self.products / speed + self.fixed


@dataclass(frozen=True)
class Dictionary:
    """An SAE of known size: dimension of the activations, number of latents, L0."""

    d: int
    width: int
    l0: float


@dataclass(frozen=True)
class CaseSize:
    """The size of a case: tokens that scores use (0 without data), its SAEs and settings."""

    tokens: int
    saes: tuple[Dictionary, ...]
    settings: Mapping[str, Any]
    loss_with: Work = field(default_factory=Work)  # one call of this input, with encoding


@dataclass(frozen=True)
class Cost:
    """What a case takes, without its inputs: work, and bytes at the peak."""

    work: Work
    memory: float = 0.0


CostOf = Callable[[CaseSize], Cost]
