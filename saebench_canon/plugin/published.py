"""Published values of scores, and who published them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum


@dataclass(frozen=True)
class Published:
    """A published value of a score, and its source."""

    value: float
    source: str


def fold(references: Iterable[Published | None]) -> Published | None:
    """The value of a line: that of all its cases, or their mean if they differ."""
    known = [reference for reference in references if reference is not None]
    if not known:
        return None
    values = [reference.value for reference in known]
    value = values[0] if len(set(values)) == 1 else fsum(values) / len(values)
    return Published(value, "; ".join(dict.fromkeys(reference.source for reference in known)))


def say_sources(by_score: Mapping[str, Iterable[Published]]) -> str:
    """Who published the values of each score, as a sentence; empty if there are none."""
    sources: dict[str, list[str]] = {}
    for score, references in by_score.items():
        for source in dict.fromkeys(reference.source for reference in references):
            sources.setdefault(source, []).append(score)
    return "; ".join(_say(source, scores, alone=len(sources) == 1)
                     for source, scores in sources.items())  # fmt: skip


def _say(source: str, scores: list[str], *, alone: bool) -> str:
    return f"published: {source}" if alone else f"published {', '.join(scores)}: {source}"
