"""Sentences on whether a decomposition found more than chance would."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from saebench_canon.reports.terminal import number

SURPLUS = 0.05  # above a null, without standard errors: chance may give this much
Scores = Mapping[str, Mapping[str, Any]]  # the scores of a record by name


class _AgainstNull(NamedTuple):
    """A score, its null, and whether it exceeds the null by more than two standard errors."""

    value: float
    null: float
    more: bool
    has_error: bool  # whether the score or the null has a standard error


def chance(scores: Scores) -> tuple[str, ...]:
    """Sentences on whether meta-latents explain more than those of random rows."""
    return tuple(_explaining(scores)) + sums(scores, "rows kept out", "meta-latents")


def _explaining(scores: Scores) -> Iterator[str]:
    trained = _against_null(scores, "explained_variance", "null_covariance")
    heldout = _against_null(scores, "heldout_explained_variance", "heldout_null")
    if trained is None:
        return
    sentence = (
        f"meta-latents explain {number(trained.value, 2)} of the rows they were trained on "
        f"({number(trained.null, 2)} of random rows with the same covariance)"
    )
    if heldout is not None:
        sentence += f" and {number(heldout.value, 2)} of rows kept out ({number(heldout.null, 2)})"
    decisive = heldout or trained
    small = not decisive.has_error and decisive.value - decisive.null <= SURPLUS
    if not decisive.more or small or (heldout is not None and heldout.value < 0):
        yield f"No more than chance: {sentence}."
    else:
        yield f"{sentence[0].upper()}{sentence[1:]}."


def sums(scores: Scores, rows: str, atoms: str, floor: float | None = None) -> tuple[str, ...]:
    """A sentence on the share of `rows` that are sums of `atoms`, if measured, and of its null.

    `floor` is the share that are sums of another seed's latents, if that was measured.
    """
    composed = _against_null(scores, "composed_share", "composed_null")
    if composed is None:
        return ()
    excess = scores.get("composed_excess", {}).get("value")
    none = (
        not composed.more
        or (excess is not None and excess <= 0)
        or (floor is not None and composed.value <= floor)
    )
    beside = f"{number(composed.null, 2)} by chance"
    beside += "" if excess is None else f", excess {number(excess, 2)}"
    beside += "" if floor is None else f"; {number(floor, 2)} of another seed's"
    head = "No sign of composition: " if none else ""
    return (f"{head}{number(composed.value, 2)} of {rows} are sums of {atoms} ({beside}).",)


def _against_null(scores: Scores, name: str, null: str) -> _AgainstNull | None:
    pair = [scores.get(score, {}) for score in (name, null)]
    value, null_value = (score.get("value") for score in pair)
    if value is None or null_value is None:
        return None
    errors = [score["stderr"] for score in pair if score.get("stderr") is not None]
    return _AgainstNull(
        value, null_value, value - null_value > 2 * math.hypot(*errors), bool(errors)
    )
