"""When a row is a sum of atoms: the rule, and how chance raises it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 1e-6  # by which a share explained may be off
NEARLY = 0.99  # share of rows from which chance explains them whole


@dataclass(frozen=True)
class Rule:
    """A row is a sum iff up to `atoms` explain `least` of it, and `gain` more than one of them.

    Where chance would make sums of more than the share `chance` of rows, `least` is raised until
    it does so no more (ours).
    """

    atoms: int = 4
    least: float = 0.6
    gain: float = 0.2
    chance: float = 0.05

    def holds(self, explained: Tensor) -> Tensor:
        """Which rows are sums, [b] bool, by the shares that 1, 2 … atoms explain, [b, atoms]."""
        first, last = explained[:, 0].double(), explained[:, -1].double()
        return (last > self.least - ROUNDING) & (last - first > self.gain - ROUNDING)

    @property
    def possible(self) -> bool:
        """Whether a row can be a sum: not where chance explains rows whole, in few dimensions."""
        return self.least < NEARLY

    def raised(self, nulls: Iterable[Tensor]) -> Rule:
        """The rule by which no more than `chance` of any null's rows [n, atoms] are sums."""
        least = self.least
        for null in nulls:
            sums = null[self.holds(null), -1].double().sort(descending=True).values
            allowed = math.floor(self.chance * len(null) + ROUNDING)
            if len(sums) > allowed:
                least = max(least, float(sums[allowed]) + 2 * ROUNDING)
        return replace(self, least=least)
