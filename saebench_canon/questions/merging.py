"""How many of the smaller SAEs' latents are sums of the larger's, and of one part in common?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from saebench_canon.questions.intervals import Interval, jackknife, wilson
from saebench_canon.questions.relations import Bools, Family

Parts = Mapping[tuple[str, str], Sequence[Sequence[int]]]  # the larger latents of each fit
Pair = tuple[str, str]  # a smaller SAE and a larger one


@dataclass(frozen=True)
class Hub:
    """The larger latent that is part of most sums: its number, and its share of `sums` sums."""

    latent: int
    share: float
    sums: int


@dataclass(frozen=True)
class Merging:
    """The share of the smaller SAEs' latents that are sums of a larger SAE's latents."""

    share: Interval
    by_small: Mapping[str, float]
    hubs: Mapping[Pair, Hub] = field(default_factory=dict)  # of pairs that have sums


def merging(
    family: Family,
    small: Sequence[str],
    large: Sequence[str],
    *,
    parts: Parts | None = None,
) -> Merging:
    """The share of all latents of the smaller SAEs, each a mean over the larger SAEs.

    A sum is about as near as a twin in other small seeds. The interval is the jackknife over small
    seeds, with a single one Wilson's over its latents. `parts` has the larger latents of each small
    latent's fit; with them the hub of each pair is found.
    """
    sums = {
        (one, other): family.sums(
            one, other, [seed for seed in small if seed != one], least=family.least
        )
        for one in small
        for other in large
    }
    by_small = {one: float(np.mean([sums[one, other] for other in large])) for one in small}
    latents = float(np.mean([len(sums[one, large[0]]) for one in small]))
    share = float(np.mean(list(by_small.values())))
    left_out = [
        float(np.mean([rest for other, rest in by_small.items() if other != one])) for one in small
    ] if len(small) > 1 else []  # fmt: skip
    interval = jackknife(share, left_out, latents) if left_out else wilson(share, latents)
    hubs = {pair: hub for pair in sums if parts and (hub := hub_of(sums[pair], parts[pair]))}
    return Merging(interval, by_small, hubs)


def hub_of(sums: Bools, parts: Sequence[Sequence[int]]) -> Hub | None:
    """The latent that is part of most sums, the first of several; None where there are no sums."""
    fits = [set(fit) for is_sum, fit in zip(sums, parts, strict=True) if is_sum]
    counts = Counter(latent for fit in fits for latent in fit)
    if not counts:
        return None
    latent = min(counts, key=lambda latent: (-counts[latent], latent))
    return Hub(latent, counts[latent] / len(fits), len(fits))
