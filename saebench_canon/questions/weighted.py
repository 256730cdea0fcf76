"""How much of what other seeds of the larger SAE find is missing in the smaller, or is sums of it?

Rules A and C share this: each latent of a larger SAE counts by the share of the other larger seeds
that find it, and the floor asks the same of those seeds, of what another one finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from saebench_canon.errors import CanonError
from saebench_canon.questions.intervals import (
    ROUNDING,
    Component,
    Interval,
    newcombe,
    student,
    wilson,
)
from saebench_canon.questions.one_larger import Found, OneLarger, Test
from saebench_canon.questions.relations import Family, Floats

FEWEST = 3  # larger seeds: one has the latents, one finds them, and one is held against them


@dataclass(frozen=True)
class Weighted:
    """A share of what large seeds find again, in the smaller SAEs and in seeds of their own size.

    `by_small` is the share in each smaller SAE, over which `share` is the mean. `found_again` is
    the mean share of the latents that another seed finds, and `found_again_least` its smallest
    value with one seed left out.
    """

    share: Interval  # M
    floor: float  # B
    above: Interval  # D, the share less the floor
    by_small: Mapping[str, float]
    found_again: float
    found_again_least: float


def missing(family: Family, small: Sequence[str], large: Sequence[str]) -> Weighted | None:
    """The share that is missing in the smaller SAEs; None where no other seed finds a latent."""
    return compared(small, large, family.found, lambda of, at, _: family.missing(of, at))


def not_found(family: Family, small: Sequence[str], large: Sequence[str]) -> Weighted | None:
    """The share that is not found in the smaller SAEs, even where sums of theirs span it."""
    return compared(small, large, family.found, lambda of, at, _: ~family.found(of, at))


def sums(family: Family, small: Sequence[str], large: Sequence[str]) -> Weighted | None:
    """The share that are sums of the smaller SAEs' latents, about as near as a seed's twins."""
    return compared(small, large, family.found, family.sums)


def compared(
    small: Sequence[str], large: Sequence[str], found: Found, test: Test
) -> Weighted | None:
    """The weighted share of the latents that pass a test in the smaller SAEs, and its floor.

    `test` gets a larger SAE, the SAE that it is held against, and the larger seeds whose twins may
    set its level. None where a larger SAE has no latent that another seed finds. Raises CanonError
    for fewer than three larger SAEs.
    """
    if len(large) < FEWEST:
        raise CanonError(f"a floor takes {FEWEST} seeds of the larger SAE, got {len(large)}")
    saes = [OneLarger.of(at, small, large, found, test) for at in range(len(large))]
    rows = [sae for sae in saes if sae is not None]
    if len(rows) < len(large):
        return None
    share, floor, latents, variance, variance_above = np.mean(
        [(row.share, row.floor, row.latents, row.variance, row.variance_above) for row in rows],
        axis=0,
    ).tolist()
    by_small = np.mean([row.by_small for row in rows], axis=0)
    by_large = np.nanmean([row.by_large for row in rows], axis=0)
    seeds = [_between(by_small)] if len(small) > 1 else []
    own = [Component(variance, latents, seeds=False), *seeds]
    both = [Component(variance_above, latents, seeds=False), *seeds, _between(by_large)]
    alone, chance = wilson(share, latents), wilson(floor, latents)
    found_by = np.stack([row.found_by for row in rows])  # [larger SAEs, larger SAEs]
    return Weighted(
        share=_interval(share, own) or alone,
        floor=floor,
        above=_interval(share - floor, both) or newcombe(alone, chance),
        by_small=dict(zip(small, by_small.tolist(), strict=True)),
        found_again=float(np.nanmean(found_by)),
        found_again_least=min(_without(found_by, seed) for seed in range(len(large))),
    )


def _between(by_seed: Floats) -> Component:
    """The variance of a mean over seeds."""
    return Component(float(by_seed.var(ddof=1)) / len(by_seed), len(by_seed))


def _interval(value: float, components: Sequence[Component]) -> Interval | None:
    """Student's t; None where nothing varies, neither between latents nor between seeds."""
    interval = student(value, components)
    return interval if interval.stderr > ROUNDING else None


def _without(found_by: Floats, seed: int) -> float:
    """The mean share that another seed finds, with one seed left out."""
    rest = np.delete(np.delete(found_by, seed, axis=0), seed, axis=1)
    return float(np.nanmean(rest))
