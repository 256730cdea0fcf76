"""What decoder rows alone say of the features: recovery, recall, precision, sums, duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saebench_canon.kernels.common_direction import centred, shares_direction
from saebench_canon.kernels.cosine import tied, unit
from saebench_canon.kernels.nnomp import pursue
from saebench_canon.metrics.seed_matching.assignment import assign

PART = 0.3  # least weight of a part of a sum, of unit rows


@dataclass(frozen=True)
class Rule:
    """From which cosine a latent is a feature (`found`) or about one (`near`), and what is a sum.

    A latent is a sum of features iff up to `atoms` of them, with weights ≥ 0, explain the share
    `least` of its row and `gain` more than the first does, and their squared weights sum to no more
    than `gate`: weights that large cancel one another, and explain anything.
    """

    found: float = 0.9
    near: float = 0.7
    atoms: int = 4
    least: float = 0.6
    gain: float = 0.2
    gate: float = 1.6
    exact_up_to: int = 8192  # features or latents, of an assignment


@dataclass(frozen=True, eq=False)
class Rows:
    """Cosines of features with latents [F, m], which latents are sums [m], and of what [m, atoms].

    A part is −1 where a pursuit stopped, or where it has next to no weight.
    """

    cosines: Tensor
    sums: Tensor
    parts: Tensor
    rule: Rule

    @property
    def best(self) -> Tensor:
        """Each feature's largest cosine with a latent, [F]."""
        return self.cosines.amax(dim=1)

    @property
    def nearest(self) -> Tensor:
        """Each latent's largest cosine with a feature, [m]."""
        return self.cosines.amax(dim=0)

    @property
    def duplicates(self) -> Tensor:
        """Latents beyond the best one that are found to be the same feature, [m] bool."""
        feature = self.cosines.argmax(dim=0)
        found = self.nearest >= self.rule.found
        first = self.cosines.argmax(dim=1)[feature] == torch.arange(len(feature))
        return found & ~first

    @property
    def matched(self) -> Tensor | None:
        """Each feature's cosine with a latent of its own [F], 0 for none; None if too many."""
        if max(self.cosines.shape) > self.rule.exact_up_to:
            return None
        matching = assign(self.cosines)
        index = torch.arange(len(matching))
        return torch.where(matching >= 0, self.cosines[index, matching.clamp(min=0)], 0.0)

    def scores(self) -> dict[str, Tensor]:
        """What each score is the mean of: over features [F], or over latents [m]."""
        return {
            "recovery": self.best,
            "recall": self.best >= self.rule.found,
            "precision": self.nearest >= self.rule.found,
            "missing_share": self.best < self.rule.near,
            "composed_share": self.sums,
            "duplicate_share": self.duplicates,
        }


def compare(features: Tensor, latents: Tensor, rule: Rule) -> Rows:
    """Unit features [F, d] and latents' rows [m, d], neither empty, of any norm."""
    rows, atoms = unit(latents), unit(features)
    fit = pursue(rows, atoms, count=rule.atoms)
    first, last = fit.explained[:, 0], fit.explained[:, -1]
    sums = (last >= rule.least) & (last - first >= rule.gain)
    sums &= (fit.weights.double() ** 2).sum(dim=1) <= rule.gate
    parts = torch.where(fit.weights >= PART, fit.atoms, -1)
    return Rows(tied(atoms @ rows.T), sums, parts, rule)


def without_common(features: Tensor, latents: Tensor) -> tuple[Tensor, Tensor] | None:
    """Both without the direction that its rows share, if either shares one; None if neither does.

    Each is centred by its own mean row. A row that consists of that direction alone drops out of
    the latents and is no latent's feature.
    """
    if not (shares_direction(features) or shares_direction(latents)):
        return None
    rows, left = centred(latents)
    return centred(features)[0], rows[left]
