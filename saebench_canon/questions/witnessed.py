"""What do a smaller and a larger SAE lack of one another, by a third one's word? (rule B)"""

from __future__ import annotations

import math
from dataclasses import dataclass

from saebench_canon.questions.intervals import Interval, newcombe, wilson
from saebench_canon.questions.relations import Bools, Family


@dataclass(frozen=True)
class Witnessed:
    """What two SAEs lack of one another, among the latents that a witness finds.

    `missing` is the share of the larger's that are missing in the smaller, `missing_back` the share
    of the smaller's that are missing in the larger, nan where the witness finds none. `above` is
    the first less the second with Newcombe's interval, `not_found` the share of the larger's that
    the smaller does not find.
    """

    missing: float  # x
    missing_back: float  # y
    latents: int  # of the larger, n_x
    latents_back: int  # of the smaller, n_y
    above: Interval
    not_found: float


def witnessed(family: Family, smaller: str, larger: str, witness: str) -> Witnessed:
    """What the smaller and the larger SAE lack of one another, of what the witness finds."""
    larger_seen, smaller_seen = family.found(larger, witness), family.found(smaller, witness)
    x = _share(family.missing(larger, smaller), larger_seen)
    y = _share(family.missing(smaller, larger), smaller_seen)
    n_x, n_y = int(larger_seen.sum()), int(smaller_seen.sum())
    not_found = _share(~family.found(larger, smaller), larger_seen)
    return Witnessed(x, y, n_x, n_y, newcombe(wilson(x, n_x), wilson(y, n_y)), not_found)


def sums_witnessed(family: Family, smaller: str, larger: str, witness: str) -> Interval:
    """The share of what the witness finds that are sums of the smaller's (rule C with one seed).

    A sum is about as near as the witness's twin. Wilson's interval; there is no floor.
    """
    seen = family.found(larger, witness)
    share = _share(family.sums(larger, smaller, [witness]), seen)
    return wilson(share, int(seen.sum()))


def _share(latents: Bools, among: Bools) -> float:
    """The share of some latents among others; nan among none."""
    return float(latents[among].mean()) if among.any() else math.nan
