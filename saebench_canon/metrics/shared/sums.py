"""Shares of sums, and the rule that makes a row one: what composition and meta-SAEs say alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.plugin.metric import Undefined

if TYPE_CHECKING:
    from saebench_canon.kernels.composition import Rule

WHOLE = "chance explains rows whole"


def check_rule(metric: str, rule: Rule) -> None:
    """Refuse settings by which nothing could be told to be a sum."""
    if rule.atoms < 2:
        raise CanonError(f"{metric}: atoms = {rule.atoms} is not 2 or more")
    for name in ("least", "gain"):
        if not 0 < getattr(rule, name) <= 1:
            what = f"{metric}: {name} = {getattr(rule, name)}"
            raise CanonError(f"{what} is not a share of a row above 0")
    if not 0 <= rule.chance <= 1:
        raise CanonError(f"{metric}: chance = {rule.chance} is not a share of rows")


def largest(shares: Sequence[float | Undefined], reason: str) -> float | Undefined:
    """The largest of the shares that are defined."""
    known = [each for each in shares if isinstance(each, float)]
    return max(known) if known else Undefined(reason)


def beyond(share: float | Undefined, null: float | Undefined) -> float | Undefined:
    """The share of sums beyond chance."""
    from saebench_canon.kernels.composition import excess

    if isinstance(share, Undefined) or isinstance(null, Undefined):
        return Undefined(WHOLE)
    return or_undefined(excess(share, null), WHOLE)


def or_undefined(value: float, reason: str) -> float | Undefined:
    """The number, or the reason where there is none."""
    return value if math.isfinite(value) else Undefined(reason)
