"""How many latents of an SAE do two other seeds find, how many one, how many neither? (ours)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saebench_canon.errors import CanonError
from saebench_canon.questions.intervals import Interval, jackknife, wilson
from saebench_canon.questions.relations import Family, Floats

FOR_INTERVALS = 4  # seeds: with fewer the values of each are shown


@dataclass(frozen=True)
class FoundAgain:
    """The latents of SAEs of one size in one another.

    `by_seed` [S, 3] are each SAE's shares found by two others, by one, by neither: with n others of
    which k find a latent, k(k−1)/n(n−1), and (n−k)(n−k−1)/n(n−1), and the rest. They estimate the
    same at every S. With two seeds there are only those found [S, 1]. `shared` is the mean share
    that another seed finds, over ordered pairs.
    """

    by_seed: Floats
    shared: Interval
    intervals: tuple[Interval, ...] = ()  # of the three shares, from four seeds on

    @property
    def shares(self) -> list[float]:
        """The mean over SAEs of each share."""
        return [float(share) for share in self.by_seed.mean(axis=0)]


def found_again(family: Family, saes: Sequence[str]) -> FoundAgain:
    """How often the latents of each SAE are found in the others; two SAEs at least."""
    if len(saes) < 2:
        raise CanonError(f"another seed finds latents again; there are {len(saes)} SAEs")
    found = {(of, at): family.found(of, at).astype(float) for of in saes for at in saes if of != at}
    latents = float(np.mean([len(found[of, at]) for of, at in found]))
    by_seed = _by_seed(found, saes)
    shared = _shared(found, saes)
    if len(saes) == 2:
        return FoundAgain(by_seed, wilson(shared, latents))
    rest = [[sae for sae in saes if sae != out] for out in saes]
    interval = jackknife(shared, [_shared(found, some) for some in rest], latents)
    if len(saes) < FOR_INTERVALS:
        return FoundAgain(by_seed, interval)
    whole = by_seed.mean(axis=0)
    left_out = np.stack([_by_seed(found, some).mean(axis=0) for some in rest])  # [S, 3]
    intervals = tuple(
        jackknife(float(share), left_out[:, column].tolist(), latents)
        for column, share in enumerate(whole)
    )
    return FoundAgain(by_seed, interval, intervals)


Found = dict[tuple[str, str], NDArray[np.float64]]


def _shared(found: Found, saes: Sequence[str]) -> float:
    """The mean over ordered pairs of the share of latents that the second SAE finds."""
    return float(np.mean([found[of, at].mean() for of in saes for at in saes if of != at]))


def _by_seed(found: Found, saes: Sequence[str]) -> Floats:
    """The shares of each SAE's latents that two others find, one, none [S, 3]; of two [2, 1]."""
    others = len(saes) - 1
    shares = []
    for of in saes:
        count = np.sum([found[of, at] for at in saes if at != of], axis=0)
        if others == 1:
            shares.append([float(count.mean())])
            continue
        pairs = others * (others - 1)
        two = float((count * (count - 1)).mean()) / pairs
        none = float(((others - count) * (others - count - 1)).mean()) / pairs
        shares.append([two, 1 - two - none, none])
    return np.array(shares)
