"""Whether what decompositions found is more than chance gives, in sentences with their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from saebench_canon.reports.render import number

SURPLUS = 0.05  # over a null without a standard error on either side: what chance may well give
Scores = Mapping[str, Mapping[str, Any]]  # of a record, by name


class _Beside(NamedTuple):
    """A score, its null, and whether it lies above it by more than two standard errors.

    `measured` is whether one of them has a standard error.
    """

    value: float
    null: float
    more: bool
    measured: bool


def chance(scores: Scores) -> tuple[str, ...]:
    """Sentences on whether meta-latents are more than those of random rows would be."""
    return tuple(_explaining(scores)) + sums(scores, "rows kept out", "meta-latents")


def _explaining(scores: Scores) -> Iterator[str]:
    seen = _beside(scores, "explained_variance", "null_covariance")
    held = _beside(scores, "heldout_explained_variance", "heldout_null")
    if seen is None:
        return
    sentence = (
        f"meta-latents explain {number(seen.value, 2)} of the rows they were trained on "
        f"({number(seen.null, 2)} of random rows with the same covariance)"
    )
    if held is not None:
        sentence += f" and {number(held.value, 2)} of rows kept out ({number(held.null, 2)})"
    told = held or seen
    small = not told.measured and told.value - told.null <= SURPLUS
    if not told.more or small or (held is not None and held.value < 0):
        yield f"No more than chance: {sentence}."
    else:
        yield f"{sentence[0].upper()}{sentence[1:]}."


def sums(scores: Scores, what: str, atoms: str, floor: float | None = None) -> tuple[str, ...]:
    """A sentence on how many are sums at all, beside how many random ones are, if measured.

    `floor` is the share that are sums of another seed's latents, where that was measured.
    """
    found = _beside(scores, "composed_share", "composed_null")
    if found is None:
        return ()
    excess = scores.get("composed_excess", {}).get("value")
    none = (
        not found.more
        or (excess is not None and excess <= 0)
        or (floor is not None and found.value <= floor)
    )
    beside = f"{number(found.null, 2)} by chance"
    beside += "" if excess is None else f", excess {number(excess, 2)}"
    beside += "" if floor is None else f"; {number(floor, 2)} of another seed's"
    head = "No sign of composition: " if none else ""
    return (f"{head}{number(found.value, 2)} of {what} are sums of {atoms} ({beside}).",)


def _beside(scores: Scores, name: str, null: str) -> _Beside | None:
    pair = [scores.get(each, {}) for each in (name, null)]
    value, beside = (each.get("value") for each in pair)
    if value is None or beside is None:
        return None
    errors = [each["stderr"] for each in pair if each.get("stderr") is not None]
    return _Beside(value, beside, value - beside > 2 * math.hypot(*errors), bool(errors))
