"""When a row is a sum of atoms: the rule, and how chance raises it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 1e-6  # error allowed in an explained share
NEARLY = 0.99  # share of a row from which chance explains whole rows
SLACK = 0.10  # how much less of a latent than another seed's twin a sum may explain


@dataclass(frozen=True)
class Rule:
    """A row is a sum iff up to `atoms` explain `least` of it, and `gain` more than the first does.

    Where more than the share `chance` of random rows would be sums, `least` is raised until no
    more than that are (ours).
    """

    atoms: int = 4
    least: float = 0.6
    gain: float = 0.2
    chance: float = 0.05

    def holds(self, explained: Tensor) -> Tensor:
        """Which rows are sums [b] bool, given the shares that 1, 2 … atoms explain [b, atoms]."""
        first, last = explained[:, 0].double(), explained[:, -1].double()
        return (last > self.least - ROUNDING) & (last - first > self.gain - ROUNDING)

    @property
    def possible(self) -> bool:
        """Whether a row can be a sum: not in so few dimensions that chance explains whole rows."""
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
