"""Which latents of one SAE are found in another, are missing there, or are sums of its latents?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saebench_canon.kernels.sum_rule import ROUNDING, SLACK, Rule

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RULE = Rule()
RESIDUAL = 0.25  # share of a latent that sums may leave over where it is no sum of them


@dataclass(frozen=True, eq=False)
class Relation:
    """The representative latents of one SAE, held against another SAE.

    `cosine` [n] is each latent's largest cosine with a live row of the other SAE, rounded. `first`
    and `explained` [n] are the shares of its square that one row and up to four rows explain,
    whatever their weights. `gated` [n] marks the fits whose squared weights add up to more than the
    gate: such a fit explains nothing. Up to `least`, chance explains sums of the other's rows.
    """

    cosine: Floats
    first: Floats
    explained: Floats
    gated: Bools
    least: float = RULE.least

    def found(self, theta: float) -> Bools:
        """Which latents have a twin in the other SAE [n]."""
        return self.cosine >= theta

    def missing(self, theta: float, residual: float = RESIDUAL) -> Bools:
        """Which latents the other SAE neither finds nor spans by a sum [n].

        Of a gated fit only its first row counts.
        """
        spanned = np.where(self.gated, self.first, self.explained)
        return ~self.found(theta) & (1 - spanned > residual)

    def sums(
        self, least: float, ceiling: Floats | None = None, *, gain: float = RULE.gain
    ) -> Bools:
        """Which latents are sums of the other SAE's [n].

        A sum explains at least `least` of its latent, and at least its `ceiling` [n] where that is
        not nan.
        """
        level = np.full(len(self.cosine), least) if ceiling is None else np.fmax(least, ceiling)
        gains = self.explained - self.first > gain - ROUNDING
        return ~self.gated & gains & (self.explained > level - ROUNDING)


@dataclass(frozen=True, eq=False)
class Family:
    """SAEs held against one another, by (of, inside), with the settings of the comparison.

    From the cosine `theta` a latent is found. Sums leave `residual` of a missing latent. They
    explain `gain` more of a sum than its first row does, and `least` before chance raises it.
    """

    relations: Mapping[tuple[str, str], Relation]
    theta: float
    residual: float = RESIDUAL
    gain: float = RULE.gain
    least: float = RULE.least

    def found(self, of: str, inside: str) -> Bools:
        """Which latents of an SAE are found in another [n]."""
        return self.relations[of, inside].found(self.theta)

    def missing(self, of: str, inside: str) -> Bools:
        """Which latents of an SAE are missing in another [n]."""
        return self.relations[of, inside].missing(self.theta, self.residual)

    def sums(
        self, of: str, inside: str, peers: Sequence[str], *, least: float | None = None
    ) -> Bools:
        """Which latents of an SAE are sums of another's, about as near as their twins in peers [n].

        Without `least` it is the level that is raised until chance explains few sums.
        """
        relation = self.relations[of, inside]
        level = relation.least if least is None else least
        ceiling = self.twin_square(of, peers) - SLACK if peers else None
        return relation.sums(level, ceiling, gain=self.gain)

    def twin_square(self, of: str, peers: Sequence[str]) -> Floats:
        """The mean squared cosine over the peers that find a latent [n]; nan where none does."""
        cosines = np.stack([self.relations[of, peer].cosine for peer in peers])
        found = cosines >= self.theta
        count, total = found.sum(axis=0), (cosines**2 * found).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)
