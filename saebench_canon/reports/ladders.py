"""Which cases with a path form a ladder: from the smallest SAE to the largest, step by step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from saebench_canon.plugin.metric import Metric, with_role
from saebench_canon.plugin.report import Tables
from saebench_canon.plugin.row import Axis, Row
from saebench_canon.tables.seed_groups import SEED, reasons_by_sae, seed_groups

Seed = tuple[Axis, ...]  # the training seed; () where the suite has none
Run = tuple[Seed, int | None]  # training seed and the case's own seed


@dataclass(frozen=True, eq=False)
class Climb:
    """A pair of neighbours on a ladder, and the path between them if there is one."""

    run: Run
    small: Axis
    large: Axis
    case: str
    path: pd.DataFrame | None


@dataclass(frozen=True, eq=False)
class Ladder:
    """SAEs that share all but their size and seed, and the pairs of neighbours among them."""

    label: str
    axis: str
    data: str | None
    shared: tuple[tuple[str, Axis], ...]
    sizes: tuple[Axis, ...]
    climbs: tuple[Climb, ...]
    of_seeds: bool = True  # False: the SAEs of one size are no seeds of one another


def find_ladders(rows: Iterable[Row], metrics: Iterable[Metric], tables: Tables) -> list[Ladder]:
    """The ladders among the cases of metrics that follow a path, each once, in row order."""
    followed = {metric.name for metric in with_role("path", metrics)}
    cases = {
        (row.label, row.id): row
        for row in rows
        if row.id and row.metric in followed and _climbs(row)
    }
    groups: dict[tuple[str, str, str | None, tuple[tuple[str, Axis], ...]], list[Row]]
    groups = defaultdict(list)
    for row in cases.values():
        axis = _axis(row)
        shared = tuple((k, v) for k, v in row.shared().items() if k not in (SEED, axis))
        groups[row.label, axis, row.data, shared].append(row)
    unique: list[Ladder] = []
    known: set[frozenset[str]] = set()
    for (label, axis, data, shared), group in groups.items():
        sizes = sorted({size for row in group for size in row.along(axis)}, key=float)
        neighbours = set(pairwise(sizes))  # `over = "all-pairs:AXIS"` has others too
        climbs = tuple(_climb(row, axis, tables) for row in group if row.along(axis) in neighbours)
        of_seeds = not reasons_by_sae(seed_groups(group, axis))
        ids = frozenset(climb.case for climb in climbs)
        if ids not in known:
            unique.append(Ladder(label, axis, data, shared, tuple(sizes), climbs, of_seeds))
        known.add(ids)
    return unique


def titles(ladders: Sequence[Ladder]) -> list[str]:
    """A title for each ladder that tells it from the others."""
    names = [
        [str(value) if name == "arch" else f"{name} {value}" for name, value in ladder.shared]
        for ladder in ladders
    ]
    for part in ("data", "label"):
        if len({getattr(ladder, part) for ladder in ladders}) > 1:
            for words, ladder in zip(names, ladders, strict=True):
                words.append(str(getattr(ladder, part)))
    return [", ".join(words) for words in names]


def _axis(row: Row) -> str:
    return row.over.partition(":")[2]


def _climbs(row: Row) -> bool:
    """Whether a row is of two SAEs of different size; those of a floor differ in seed only."""
    axis = _axis(row)
    sizes = [member.get(axis) for member in row.members]
    widths = {member.get("width") for member in row.members}
    return (
        axis not in ("", SEED)
        and len(set(sizes)) == 2
        and all(isinstance(size, int | float) and not isinstance(size, bool) for size in sizes)
        and (len(widths) == 2 or widths == {None})
    )


def _climb(row: Row, axis: str, tables: Tables) -> Climb:
    small, large = row.along(axis)
    path = tables(row.id or "", "path")
    drawable = None if path is None or path.empty else path
    return Climb((row.along(SEED), row.seed), small, large, row.id or "", drawable)
