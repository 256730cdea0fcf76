"""Values that others published: one for a line of a table, and who published it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum


@dataclass(frozen=True)
class Published:
    """A value that somebody published of a score, as it was written, and who."""

    value: float
    source: str


def fold(found: Iterable[Published | None]) -> Published | None:
    """One value for a line: what its cases agree on, or else the mean over them."""
    told = [each for each in found if each is not None]
    if not told:
        return None
    values = {each.value for each in told}
    value = values.pop() if len(values) == 1 else fsum(each.value for each in told) / len(told)
    return Published(value, "; ".join(dict.fromkeys(each.source for each in told)))


def say_sources(told: Mapping[str, Iterable[Published]]) -> str:
    """Who published the values of each score, as a sentence; nothing where there are none."""
    sources: dict[str, list[str]] = {}
    for score, each in told.items():
        for source in dict.fromkeys(one.source for one in each):
            sources.setdefault(source, []).append(score)
    return "; ".join(_say(source, scores, alone=len(sources) == 1)
                     for source, scores in sources.items())  # fmt: skip


def _say(source: str, scores: list[str], *, alone: bool) -> str:
    return f"published: {source}" if alone else f"published {', '.join(scores)}: {source}"
