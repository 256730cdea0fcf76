"""Shares of rows that are sums, and checks of the rule: shared by composition and meta-SAEs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.plugin.metric import Score, Undefined, Value

if TYPE_CHECKING:
    from saebench_canon.kernels.sum_rule import Rule

Number = float | Value | Undefined

WHOLE = "chance explains rows whole"
CHANCE = ("parent", "covariance", "clusters")  # three ways to make rows without sums


def check_rule(metric: str, rule: Rule) -> None:
    """Refuse settings that make no rule."""
    if rule.atoms < 2:
        raise CanonError(f"{metric}: atoms must be 2 or more, got {rule.atoms}")
    for name, share in (("least", rule.least), ("gain", rule.gain)):
        if not 0 < share <= 1:
            requirement = f"{name} must be a share of a row, above 0 and up to 1"
            raise CanonError(f"{metric}: {requirement}, got {share}")
    if not 0 <= rule.chance <= 1:
        raise CanonError(f"{metric}: chance must be a share of rows, 0 to 1, got {rule.chance}")


def composed_scores(*, rows: str, atom: str, headlines: Sequence[str] = ()) -> list[Score]:
    """The scores of `composed`; `rows` says which rows are sums, `atom` what an atom is called."""
    scores = [
        Score("composed_share", better="lower", null="composed_null", help=f"Share of {rows}."),
        Score("composed_null", help="The same by chance: the highest of the three below."),
        Score(
            "composed_null_parent",
            help=f"The same of rows that keep their part along the best {atom}, the rest redrawn.",
        ),
        Score("composed_null_covariance", help="The same of random rows of the same covariance."),
        Score("composed_null_clusters", help="The same of rows that each vary one parent."),
        Score(
            "composed_excess",
            better="lower",
            help="(composed_share − composed_null) / (1 − composed_null).",
        ),
        Score("composed_least", help="Share of a row to be explained in a sum, raised by chance."),
    ]
    return [replace(score, headline=score.name in headlines) for score in scores]


COMPOSED = tuple(score.name for score in composed_scores(rows="rows", atom="atom"))


def composed(share: Number, by_chance: Mapping[str, Number]) -> dict[str, Number]:
    """The share of sums, the share in each null of `CHANCE`, and the excess over the highest."""
    null = largest(by_chance.values(), WHOLE)
    return {
        "composed_share": share,
        "composed_null": null,
        **{f"composed_null_{name}": by_chance[name] for name in CHANCE},
        "composed_excess": beyond(share, null),
    }


def largest(shares: Iterable[Number], reason: str) -> Number:
    """The largest of the shares that are defined."""
    known = [share for share in shares if not isinstance(share, Undefined)]
    return max(known, key=_number) if known else Undefined(reason)


def beyond(share: Number, null: Number) -> Number:
    """The share of sums beyond chance."""
    from saebench_canon.kernels.composition import excess

    if isinstance(share, Undefined) or isinstance(null, Undefined):
        return Undefined(WHOLE)
    return or_undefined(excess(_number(share), _number(null)), WHOLE)


def or_undefined(value: float, reason: str) -> float | Undefined:
    """The number, or the reason why there is none."""
    return value if math.isfinite(value) else Undefined(reason)


def _number(score: float | Value) -> float:
    return score.value if isinstance(score, Value) else score
