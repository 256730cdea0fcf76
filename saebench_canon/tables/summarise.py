"""How the rows of a run fold into tables: one block per architecture, one line per dictionary size.

`stats` folds the seeds. A score comes with its null (a score of the same record) and its floor (the
same score between two seeds of one size). Nothing is sorted by value.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from math import fsum
from typing import Any

from saebench_canon.plugin.metric import Metric, Score
from saebench_canon.plugin.published import fold
from saebench_canon.plugin.question import IN_FAMILIES
from saebench_canon.plugin.report import Tables
from saebench_canon.plugin.row import Axis, Row, Status
from saebench_canon.plugin.table_line import Cell, Estimate, Key, Line
from saebench_canon.tables.seed_groups import SEED, SeedGroup, reasons_by_sae, seed_groups
from saebench_canon.tables.stats import LEVEL, over_group, over_no_seeds, over_pairs, over_seeds
from saebench_canon.tables.summary import Block, Note, Summary, Table

FEW = 4  # a note lists at most so many scores by name


def summarise(
    rows: Iterable[Row | Mapping[str, Any]],
    metrics: Iterable[Metric],
    *,
    level: float = LEVEL,
    tables: Tables | None = None,
    data: Mapping[str, str] | None = None,
) -> Summary:
    """Fold the rows of a run into blocks of tables.

    `metrics` are the declarations (directions, digits, nulls, headlines, help); tables follow
    their order. The tables of other metrics come last, with plain columns. `tables` reads the
    tables of records, for questions. `data` says what each data table gives.
    """
    declared = {metric.name: metric for metric in metrics}
    known = [row if isinstance(row, Row) else Row.from_dict(row) for row in rows]
    scored = [
        scored_row
        for row in known
        for scored_row in _by_score(row, declared.get(row.metric), known)
    ]
    axis = _ladder(scored)
    sources = {row.data for row in scored}
    grouped: dict[tuple[str | None, tuple[tuple[str, Axis], ...]], list[Row]] = defaultdict(list)
    for row in scored:
        axes = {name: v for name, v in row.shared().items() if name not in (SEED, axis)}
        grouped[row.data, tuple(axes.items())].append(row)
    marks = _marks(scored)
    blocks = tuple(
        _block(dict(axes), group, declared, axis, marks, level, tables, titled=len(sources) > 1)
        for (_, axes), group in grouped.items()
    )
    suite = scored[0].suite if scored else ""
    return Summary(suite=suite, blocks=blocks, level=level, data=data or {})


def _by_score(row: Row, metric: Metric | None, rows: Sequence[Row]) -> Iterator[Row]:
    """One row per score; a case that failed or is missing has a single row for all of them."""
    if row.score is not None:
        yield row
        return
    names = [score.name for score in metric.scores] if metric else []
    names = names or list(dict.fromkeys(r.score for r in rows if r.label == row.label and r.score))
    for name in names:
        yield replace(row, score=name)


def _ladder(rows: Iterable[Row]) -> str:
    """The axis that separates a table's lines: width, or else the axis of the measured pairs."""
    rows = list(rows)
    if any("width" in member for row in rows for member in row.members):
        return "width"
    walked = [row.over.split(":", 1)[1] for row in rows if row.over.startswith("pairs:")]
    return next((axis for axis in walked if axis != SEED), "width")


def _marks(rows: Iterable[Row]) -> dict[str, dict[str, list[str]]]:
    """Marks on single SAEs: the names of the SAEs by kind and reason."""
    marks: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for mark in row.marks:
            names = marks[mark.kind][mark.reason]
            names.extend(name for name in row.subject if row.of == "sae" and name not in names)
    return marks


def _block(
    axes: Mapping[str, Axis],
    rows: Sequence[Row],
    declared: Mapping[str, Metric],
    axis: str,
    marks: Mapping[str, Mapping[str, Sequence[str]]],
    level: float,
    read: Tables | None,
    *,
    titled: bool,
) -> Block:
    related = [row for row in rows if row.over in IN_FAMILIES]
    read_alone = [row for row in rows if row.over == "each" and row.of == "sae"]
    everything, rows = rows, [row for row in rows if row.over not in IN_FAMILIES]
    labels: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        labels[row.label].append(row)
    unfit = {name for names in marks.get("unfit", {}).values() for name in names}
    groups = seed_groups(everything, axis)
    unseeded = reasons_by_sae(groups)
    caveat = {name for names in marks.get("caveat", {}).values() for name in names} | {*unseeded}
    tables = []
    for label, group in labels.items():
        table = _table(label, group, declared.get(group[0].metric), axis, level, unseeded)
        marked = [
            replace(
                line,
                unfit=line.unfit or not unfit.isdisjoint(line.subjects),
                caveat=line.caveat or not caveat.isdisjoint(line.subjects),
            )
            for line in table.lines
        ]
        tables.append(replace(table, lines=tuple(marked)))
    data = everything[0].data
    joined, unlike = _join_floors(tables, {label: group[0] for label, group in labels.items()})
    words = [str(value) if name == "arch" else f"{name} {value}" for name, value in axes.items()]
    saes: dict[Axis, dict[str, None]] = defaultdict(dict)
    tokens: dict[Axis, set[float]] = defaultdict(set)
    for row in everything:
        for name, member in zip(row.subject, row.members, strict=False):
            if axis in member:
                saes[member[axis]][name] = None
            if "train_tokens" in member and axis in member:
                tokens[member[axis]].add(float(member["train_tokens"]))
    return Block(
        title=", ".join(
            words + ([_say_data(data)] if titled and data not in axes.values() else [])
        ),
        axes=axes,
        data=data,
        tables=tuple(sorted(joined, key=lambda table: _position(table, declared))),
        notes=(*_notes_on_seeds(groups), *_notes(rows, marks), *_gaps(related), *unlike),
        saes={size: tuple(saes[size]) for size in sorted(saes, key=lambda size: _order((size,)))},
        train_tokens={width: tuple(sorted(counts)) for width, counts in tokens.items()},
        no_seeds={group.size: group.reason for group in groups if group.reason},
        seeds_unknown=frozenset(group.size for group in groups if group.unknown),
        cases=tuple(
            {row.id: row for row in related + read_alone if row.status == "measured"}.values()
        ),
        scores={
            (row.id or "", row.score or ""): row.value
            for row in related + read_alone
            if row.value is not None
        },
        read=read,
    )


def _gaps(rows: Iterable[Row]) -> Iterator[Note]:
    """The cases of families that failed or were not measured."""
    lost: dict[tuple[Status, str, str], dict[str, None]] = defaultdict(dict)
    for row in rows:
        if row.status in ("failed", "missing"):
            lost[row.status, row.label, row.reason or ""][str(row)] = None
    for (status, label, reason), cases in lost.items():
        yield Note(status, f"{label}: {reason}" if reason else label, tuple(cases))


def _notes_on_seeds(groups: Iterable[SeedGroup]) -> Iterator[Note]:
    """Who is no seed of another, and of whom nobody knows."""
    for group in groups:
        if group.reason is not None:
            yield Note("caveat", f"no seeds of one another: {group.reason}", tuple(group.recorded))
    unknown = tuple(name for group in groups if group.unknown for name in group.recorded)
    if unknown:
        reason = "not each file records its seed: whether these are seeds of one another is unknown"
        yield Note("note", reason, unknown)


def _table(
    label: str,
    rows: Sequence[Row],
    metric: Metric | None,
    axis: str,
    level: float,
    unseeded: Container[str],
) -> Table:
    lines: dict[Key, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for key, row in _keyed(rows, axis):
        lines[key][row.score or ""].append(row)
    names = dict.fromkeys(name for scores in lines.values() for name in scores)
    scores = metric.scores if metric else tuple(Score(name) for name in names)
    return Table(
        label=label,
        metric=rows[0].metric,
        version=metric.version if metric else None,
        about=metric.help.split("\n", 1)[0] if metric else "",
        over=rows[0].over,
        columns=tuple(score for score in scores if score.name in names),
        lines=tuple(
            _line(key, lines[key], scores, level, unseeded) for key in sorted(lines, key=_order)
        ),
        case_seeds=len({row.seed for row in rows}),
        row_axis=axis if any(row.along(axis) for row in rows) else "",
    )


def _keyed(rows: Sequence[Row], axis: str) -> Iterator[tuple[Key, Row]]:
    """Each row with the key of its line; SAEs with the same axes are keyed by name."""
    subjects: dict[object, set[tuple[str, ...]]] = defaultdict(set)
    for row in rows:
        subjects[row.along(axis), row.along(SEED), row.seed, row.score].add(row.subject)
    doubled = {line[0] for line, names in subjects.items() if len(names) > 1}  # type: ignore[index]
    for row in rows:
        key = row.along(axis)
        yield (row.subject if key in doubled else key), row


def _line(
    key: Key,
    rows: Mapping[str, Sequence[Row]],
    scores: Iterable[Score],
    level: float,
    unseeded: Container[str],
) -> Line:
    folded = {name: _cell(scores, level, unseeded) for name, scores in rows.items()}
    for score in scores:
        null = folded.get(score.null or "")
        if score.name in folded and null is not None:
            folded[score.name] = replace(folded[score.name], null=null.estimate)
    every = [row for scores in rows.values() for row in scores]
    subjects = tuple(dict.fromkeys(name for row in every for name in row.subject))
    kinds = {mark.kind for row in every for mark in row.marks}
    title = " → ".join(str(value) for value in key)
    return Line(
        key=key,
        title=title or " … ".join(dict.fromkeys((subjects[0], subjects[-1]))),
        cells=folded,
        subjects=subjects,
        cases=tuple(dict.fromkeys(str(row) for row in every)),
        unfit="unfit" in kinds,
        caveat="caveat" in kinds,
    )


def _cell(rows: Sequence[Row], level: float, unseeded: Container[str]) -> Cell:
    measured = [row for row in rows if row.status == "measured" and row.value is not None]
    lost = len(rows) - len(measured)
    published = fold(row.reference for row in rows)
    if measured:
        estimate = _fold(measured, level, unseeded)
        return Cell(estimate, "measured", lost, published=published)
    worst: tuple[Status, ...] = ("failed", "missing", "undefined")
    status: Status = next((s for s in worst if any(r.status == s for r in rows)), "missing")
    return Cell(None, status, lost, published=published)


def _fold(rows: Sequence[Row], level: float, unseeded: Container[str]) -> Estimate:
    """One estimate from the measured values of one score on one line.

    `unseeded` are the SAEs that are no seeds of one another, whatever the axis `seed` says.
    """
    values: dict[Key, list[float]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: _order(row.along(SEED))):
        values[row.along(SEED)].append(float(row.value or 0.0))
    errors = [row.stderr for row in rows if row.stderr is not None]
    stderr = fsum(errors) / len(errors) if len(errors) == len(rows) else None
    first, seeds = rows[0], rows[0].along(SEED)
    saes = len(dict.fromkeys(chain.from_iterable(values)))
    if saes > 1 and any(name in unseeded for row in rows for name in row.subject):
        return over_no_seeds(values, saes)
    if first.of == "group" and len(seeds) > 1:
        mean = fsum(float(row.value or 0.0) for row in rows) / len(rows)
        count = first.n if first.unit == "training seed" else None
        return over_group(mean, stderr, count or len(seeds), level=level)
    if first.of == "pair" and len(seeds) == 2:
        return over_pairs(
            {(pair[0], pair[-1]): scores for pair, scores in values.items()}, level=level
        )
    return over_seeds(values, level=level, stderr=stderr, n=first.n, unit=first.unit)


def _join_floors(
    tables: Sequence[Table], rows: Mapping[str, Row]
) -> tuple[list[Table], list[Note]]:
    """Join to each step of a ladder its floors: the same scores between seeds of one size."""
    floors = [
        table
        for table in tables
        if rows[table.label].of == "pair" and table.over.endswith(f"pairs:{SEED}")
    ]
    joined_floors: set[str] = set()
    notes: list[Note] = []
    joined = []
    for table in tables:
        if table in floors or rows[table.label].of != "pair":
            joined.append(table)
            continue
        alike = [floor for floor in floors if floor.metric == table.metric]
        fits = [f for f in alike if _settings(rows[f.label]) == _settings(rows[table.label])]
        if alike and not fits:
            differ = _differing(rows[alike[0].label], rows[table.label])
            reason = f"'{alike[0].label}' is not its floor: the settings differ ({differ})"
            notes.append(Note("floor", reason, (table.label,)))
        joined_floors |= {floor.label for floor in fits[:1]}
        cells_by_key = {line.key: line.cells for floor in fits[:1] for line in floor.lines}
        joined.append(
            replace(table, lines=tuple(_floored(line, cells_by_key) for line in table.lines))
        )
    return [replace(t, is_floor=t.label in joined_floors) for t in joined], notes


def _floored(line: Line, cells_by_key: Mapping[Key, Mapping[str, Cell]]) -> Line:
    small, large = cells_by_key.get(line.key[:1], {}), cells_by_key.get(line.key[-1:], {})

    def joined(name: str, cell: Cell) -> Cell:
        return replace(
            cell,
            floor=large[name].estimate if name in large else None,
            floor_small=small[name].estimate if name in small else None,
        )

    return replace(line, cells={name: joined(name, cell) for name, cell in line.cells.items()})


def _notes(rows: Sequence[Row], marks: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[Note]:
    present = dict.fromkeys(name for row in rows for name in row.subject)
    for kind in ("unfit", "caveat"):
        for reason, names in marks.get(kind, {}).items():
            if marked := tuple(name for name in names if name in present):
                yield Note(kind, reason, marked)
    cases_by_mark: dict[tuple[str, str], list[str]] = defaultdict(list)
    gaps: dict[tuple[str, str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        case = str(row)
        for mark in row.marks:
            if (mark.kind == "note" or row.of != "sae") and case not in cases_by_mark[
                mark.kind, mark.reason
            ]:
                cases_by_mark[mark.kind, mark.reason].append(case)
        if row.status != "measured":
            gaps[row.status, row.label, row.reason or ""][case].append(row.score or "")
    for (kind, reason), names in cases_by_mark.items():
        yield Note(kind, reason, tuple(names))
    for (status, label, reason), cases in gaps.items():
        scores = list(dict.fromkeys(chain.from_iterable(cases.values())))
        failed = status in ("failed", "missing")
        about = () if failed or len(scores) > FEW else tuple((label, score) for score in scores)
        named = ", ".join(scores) if len(scores) <= FEW else f"{len(scores)} scores"
        description = label if failed else f"{label} {named}"
        yield Note(
            status, f"{description}: {reason}" if reason else description, tuple(cases), about
        )


def _say_data(data: str | None) -> str:
    return "no data" if data is None else f"data {data}"


def _settings(row: Row) -> str:
    return json.dumps(dict(row.settings), sort_keys=True, default=str)


def _differing(floor: Row, step: Row) -> str:
    first, second = floor.settings, step.settings
    return ", ".join(
        sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))
    )


def _order(key: Key) -> tuple[tuple[int, float, str], ...]:
    """Sort key: numbers by value, then names alphabetically."""
    return tuple(
        (0, float(part), "") if isinstance(part, int | float) else (1, 0.0, part) for part in key
    )


def _position(table: Table, declared: Mapping[str, Metric]) -> int:
    """The index of a table in its block: the order in which metrics are declared."""
    names = list(declared)
    return names.index(table.metric) if table.metric in declared else len(names)
