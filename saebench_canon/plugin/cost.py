"""What a metric says beforehand of what a case of it costs: multiply-adds, seconds and bytes.

    def cost(size: CaseSize) -> Cost:
        (sae,) = size.saes
        return Cost(Work(products=size.tokens * sae.l0 * sae.d))

    @metric(scores=[…], of="sae", version=1, cost=cost)

`plan` asks for it, so a function of this kind imports neither torch nor anything as slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Work:
    """Multiply-adds, and seconds that do not come from them."""

    products: float = 0.0
    fixed: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.products + other.products, self.fixed + other.fixed)

    def times(self, count: float) -> Work:
        """The same so many times."""
        return Work(self.products * count, self.fixed * count)

    def seconds(self, speed: float) -> float:
        """Seconds at so many multiply-adds a second."""
        return self.products / speed + self.fixed


@dataclass(frozen=True)
class Dictionary:
    """An SAE whose size is known: width of the activations, latents, active latents a token."""

    d: int
    width: int
    l0: float


@dataclass(frozen=True)
class CaseSize:
    """How large a case is: tokens that scores use (0 without data), its SAEs, all its settings."""

    tokens: int
    saes: tuple[Dictionary, ...]
    settings: Mapping[str, Any]
    loss_with: Work = field(default_factory=Work)  # a call of that input, encoding included


@dataclass(frozen=True)
class Cost:
    """What a case takes, besides making its inputs: work, and bytes at the peak."""

    work: Work
    memory: float = 0.0


CostOf = Callable[[CaseSize], Cost]
