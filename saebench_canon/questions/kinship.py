"""The SAEs of a block as the rules see them: sizes, starts, relations and gains."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saebench_canon.kernels.mean_row import is_shared
from saebench_canon.plugin.row import Axis, ListedCase
from saebench_canon.plugin.table_line import Block
from saebench_canon.questions.gains import Documents, Gains
from saebench_canon.questions.merging import Parts
from saebench_canon.questions.relations import Family, Relation
from saebench_canon.questions.starts import Met, components

if TYPE_CHECKING:
    import pandas as pd

COMPARISON, INSERTION = "comparison", "insertion"  # the metrics that compared them
GEOMETRY = "geometry"  # and the one that compared the rows of each SAE with one another
CENTRED = "_centred"
Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class View:
    """Rows as they are, or centred: relations, and what belongs to each pair (of, inside).

    `recall` is the share of planted sums that are found, `low` the 5th percentile of what the
    other's rows leave of random rows, `parent` the share of sums in the parent null. `latents` are
    the numbers of each SAE's latents in the order of its relations, and `own` their fits by one
    another (the cosine is that with the nearest other latent).
    """

    family: Family
    latents: Mapping[str, NDArray[np.int64]]
    own: Mapping[str, Relation]
    recall: Mapping[Pair, float]
    low: Mapping[Pair, float]
    parent: Mapping[Pair, float]
    parts: Parts
    gains: Gains
    documents: Documents


@dataclass(frozen=True, eq=False)
class Kin:
    """SAEs that differ in width and start only.

    `sizes` has the SAEs of each width, smaller first; `starts` those of each start, of which the
    first stands for its twins. `mse` is each SAE's error with its codes at their best factor.
    """

    sizes: Mapping[Axis, tuple[str, ...]]
    starts: Mapping[Axis, tuple[tuple[str, ...], ...]]
    unknown_starts: frozenset[str]
    raw: View
    centred: View
    shared: frozenset[str]  # SAEs whose rows share a direction
    mse: Mapping[str, float]
    duplicates: Mapping[str, int]
    seeds: Mapping[str, Axis]
    twins: Mapping[str, Mapping[int, int]]  # the duplicates of an SAE, with what stands for each

    def of(self, size: Axis) -> tuple[str, ...]:
        """One SAE of each start of a size."""
        return tuple(start[0] for start in self.starts[size])

    def uncompared(self, pairs: Iterable[Pair]) -> str | None:
        """The first of these pairs (of, inside) that was not compared, in words."""
        for of, inside in pairs:
            views = self.views((of, inside))
            if any((of, inside) not in view.family.relations for view in views):
                return f"{of} and {inside} were not compared"
        return None

    def neighbours(self, size: Axis) -> tuple[Axis | None, Axis | None]:
        """The next smaller and the next larger size."""
        sizes = list(self.sizes)
        at = sizes.index(size)
        return (sizes[at - 1] if at else None), (sizes[at + 1] if at + 1 < len(sizes) else None)

    def witnesses(self, sae: str, size: Axis) -> list[str]:
        """The SAEs of the next larger size; where none is, the other starts of this one."""
        _, above = self.neighbours(size)
        return [other for other in self.of(size if above is None else above) if other != sae]

    def views(self, names: Iterable[str]) -> list[View]:
        """Rows as they are, and centred ones where some share a direction: the last one judges."""
        return [self.raw] if self.shared.isdisjoint(names) else [self.raw, self.centred]


@dataclass
class _Builder:
    """What is read from the cases one after another."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    relations: dict[Pair, Relation] = field(default_factory=dict)
    latents: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    own: dict[str, Relation] = field(default_factory=dict)
    recall: dict[Pair, float] = field(default_factory=dict)
    low: dict[Pair, float] = field(default_factory=dict)
    parent: dict[Pair, float] = field(default_factory=dict)
    parts: dict[Pair, Sequence[Sequence[int]]] = field(default_factory=dict)
    gains: dict[Pair, float] = field(default_factory=dict)
    documents: dict[Pair, Any] = field(default_factory=dict)

    def view(self) -> View:
        family = Family(
            self.relations,
            theta=float(self.settings["threshold"]),
            residual=float(self.settings["residual"]),
            gain=float(self.settings["gain"]),
            least=float(self.settings["least"]),
        )
        return View(
            family,
            self.latents,
            self.own,
            self.recall,
            self.low,
            self.parent,
            self.parts,
            self.gains,
            self.documents,
        )


def kin_of(block: Block) -> Kin | None:
    """The SAEs of a block that were compared in pairs; None if none were."""
    kin: Kin | None = block.once("kin", lambda: _kin_of(block))
    return kin


def _kin_of(block: Block) -> Kin | None:
    compared = [case for case in block.cases if case.metric == COMPARISON]
    if not compared:
        return None
    raw, centred = _Builder(compared[0].settings), _Builder(compared[0].settings)
    sizes: dict[Axis, dict[str, None]] = defaultdict(dict)
    seeds: dict[str, Axis] = {}
    met: dict[Pair, Met] = {}
    duplicates: dict[str, int] = {}
    shared: set[str] = set()
    for case in compared:
        for name, member in zip(case.subject, case.members, strict=True):
            sizes[member["width"]][name] = None
            seeds[name] = member.get("seed", "")
        small, large = case.subject
        for name, side in ((small, "small"), (large, "large")):
            count = block.score(case, f"distinct_{side}")
            mean = block.score(case, f"mean_row_norm_{side}")
            duplicates[name] = int(block.score(case, f"duplicates_{side}") or 0)
            if count and mean is not None and is_shared(mean, int(count)):
                shared.add(name)
        for view, end in ((raw, ""), (centred, CENTRED)):
            _read(block, case, view, end)
        start = block.table(case, "start")
        if start is not None:
            line = start.iloc[0]
            met[small, large] = Met(
                int(line["live"]), int(line["mutual"]), int(line["same_index"]),
                bool(line["sorted"]),
            )  # fmt: skip
    mse = _gains(block, raw, centred)
    twins = _own(block, raw, centred)
    ordered = {size: tuple(sizes[size]) for size in sorted(sizes, key=_by_value)}
    starts, unknown = components(ordered, met)
    return Kin(
        ordered, starts, unknown, raw.view(), centred.view(), frozenset(shared), mse,
        duplicates, seeds, twins,
    )  # fmt: skip


def _read(block: Block, case: ListedCase, view: _Builder, end: str) -> None:
    """Both directions of one pair, in one view; nothing of a pair without live latents."""
    small, large = case.subject
    for of, inside, side, whose in (
        (large, small, "large", ""), (small, large, "small", "_small"),
    ):  # fmt: skip
        table = block.table(case, side)
        least = block.score(case, f"sum_least{whose}{end}")
        if table is None or least is None or f"cosine{end}" not in table:
            continue
        kept = table[table[f"cosine{end}"].notna()]
        view.relations[of, inside] = _relation(kept, end, least)
        view.latents[of] = kept["latent"].to_numpy(int)
        view.parts[of, inside] = [list(atoms) for atoms in kept[f"atoms{end}"]]
        for numbers, name in (
            (view.recall, "planted_recall"), (view.low, "chance_residual"),
            (view.parent, "sum_share_parent"),
        ):  # fmt: skip
            numbers[of, inside] = block.score(case, f"{name}{whose}{end}") or 0.0


def _relation(table: pd.DataFrame, end: str, least: float) -> Relation:
    return Relation(
        table[f"cosine{end}"].to_numpy(float),
        table[f"first{end}"].to_numpy(float),
        table[f"explained{end}"].to_numpy(float),
        table[f"gated{end}"].to_numpy(bool),
        least,
    )


def _own(block: Block, raw: _Builder, centred: _Builder) -> dict[str, dict[int, int]]:
    """The fits of each SAE's latents by one another; returns the duplicates of each SAE."""
    twins: dict[str, dict[int, int]] = {}
    for case in (case for case in block.cases if case.metric == GEOMETRY):
        (name,) = case.subject
        table = block.table(case, "latents")
        if table is None:
            continue
        doubles = table[table["twin_of"] >= 0]
        twins[name] = dict(zip(doubles["latent"], doubles["twin_of"], strict=True))
        for view, end in ((raw, ""), (centred, CENTRED)):
            if f"first{end}" in table:
                kept = table[table[f"first{end}"].notna()]
                view.own[name] = _relation(kept, end, view.settings["least"])
                view.latents.setdefault(name, kept["latent"].to_numpy(int))
    return twins


def _gains(block: Block, raw: _Builder, centred: _Builder) -> dict[str, float]:
    """What each receiver gains from each giver, in both views; returns the errors of SAEs."""
    mse: dict[str, float] = {}
    for case in (case for case in block.cases if case.metric == INSERTION):
        receiver, giver = case.subject
        for name, score in ((receiver, "small_mse_rescaled"), (giver, "large_mse_rescaled")):
            error = block.score(case, score)
            if error is not None:
                mse[name] = error
        gain = block.score(case, "stable_gain")
        table = block.table(case, "documents")
        if gain is None or table is None:
            continue
        alone = block.score(case, f"stable_gain{CENTRED}")
        for view, value, column in (
            (raw, gain, "removed"),
            (centred, gain if alone is None else alone,
             "removed" if alone is None else f"removed{CENTRED}"),
        ):  # fmt: skip
            view.gains[receiver, giver] = value
            view.documents[receiver, giver] = (
                table["document"].to_numpy(int),
                table["error"].to_numpy(float),
                table[column].to_numpy(float),
            )
    return mse


def _by_value(size: Axis) -> tuple[int, float, str]:
    if isinstance(size, int | float):
        return (0, float(size), "")
    return (1, 0.0, size)


def less_error(kin: Kin, small: Sequence[str], large: Sequence[str]) -> float:
    """How much less error the larger SAEs leave, as a share of the smaller's; nan if not known."""
    errors = [[kin.mse.get(name, math.nan) for name in names] for names in (small, large)]
    before, after = (float(np.mean(each)) for each in errors)
    return 1 - after / before if before > 0 else math.nan
