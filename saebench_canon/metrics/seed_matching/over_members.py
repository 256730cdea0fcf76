"""One number and its standard error, from the values of pairs or triples of members."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TypeVar

from saebench_canon.plugin.metric import Value
from saebench_canon.tables.stats import jackknife_stderr

Members = TypeVar("Members", bound=tuple[int, ...])  # of a pair or triple, the one judged first


def over_members(values: Mapping[Members, float], members: int) -> Value:
    """The mean, with the leave-one-out standard error from three members on.

    Of triples from four on: without one of three, none is left.
    """
    stderr = _stderr(values, members) if members >= 3 else None
    return Value(mean(values.values()), stderr, members, "training seed")


def _stderr(values: Mapping[Members, float], members: int) -> float | None:
    without_one = [
        [value for those, value in values.items() if member not in those]
        for member in range(members)
    ]
    if not all(without_one):
        return None
    return jackknife_stderr([mean(rest) for rest in without_one])


def of_members(values: Mapping[Members, float], members: int) -> list[float]:
    """The mean of each member's own pairs or triples, nan for a member without any."""
    own: list[list[float]] = [[] for _ in range(members)]
    for (member, *_), value in values.items():
        own[member].append(value)
    return [mean(part) if part else math.nan for part in own]


def mean(values: Collection[float]) -> float:
    """The mean of at least one value."""
    return math.fsum(values) / len(values)
