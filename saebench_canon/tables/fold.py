"""How the rows of a run fold into tables: a block an architecture, a line a dictionary size.

Seeds are folded by `stats`. Beside a score stands its null (a score of the same record) and its
floor (the same score between two seeds of one size); nothing is sorted by value.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import fsum
from typing import Any

from saebench_canon.plugin.line import Cell, Estimate, Key, Line
from saebench_canon.plugin.metric import Metric, Score
from saebench_canon.plugin.published import fold
from saebench_canon.plugin.row import Axis, Row, Status
from saebench_canon.tables.stats import LEVEL, over_group, over_pairs, over_seeds
from saebench_canon.tables.summary import Block, Note, Summary, Table

SEED = "seed"

FEW = 4  # scores that a note names one by one


def summarise(
    rows: Iterable[Row | Mapping[str, Any]], metrics: Iterable[Metric], *, level: float = LEVEL
) -> Summary:
    """Fold the rows of a run into blocks of tables.

    `metrics` are the declarations (directions, digits, nulls, headlines, help); tables stand in
    their order. A metric that is not among them comes last and is shown with plain columns.
    """
    declared = {metric.name: metric for metric in metrics}
    known = [row if isinstance(row, Row) else Row.from_dict(row) for row in rows]
    full = [each for row in known for each in _spread(row, declared.get(row.metric), known)]
    axis = _ladder(full)
    sources = {row.data for row in full}
    grouped: dict[tuple[str | None, tuple[tuple[str, Axis], ...]], list[Row]] = defaultdict(list)
    for row in full:
        axes = {name: v for name, v in row.shared().items() if name not in (SEED, axis)}
        grouped[row.data, tuple(axes.items())].append(row)
    marks = _marks(full)
    blocks = tuple(
        _block(dict(axes), group, declared, axis, marks, level, titled=len(sources) > 1)
        for (_, axes), group in grouped.items()
    )
    return Summary(suite=full[0].suite if full else "", blocks=blocks, level=level)


def _spread(row: Row, metric: Metric | None, rows: Sequence[Row]) -> Iterator[Row]:
    """A row for each score of a case that failed or is missing as a whole."""
    if row.score is not None:
        yield row
        return
    names = [score.name for score in metric.scores] if metric else []
    names = names or list(dict.fromkeys(r.score for r in rows if r.label == row.label and r.score))
    for name in names:
        yield replace(row, score=name)


def _ladder(rows: Iterable[Row]) -> str:
    """The axis that makes a table's lines: width, or else the one whose pairs were measured."""
    rows = list(rows)
    if any("width" in member for row in rows for member in row.members):
        return "width"
    walked = [row.over.split(":", 1)[1] for row in rows if row.over.startswith("pairs:")]
    return next((axis for axis in walked if axis != SEED), "width")


def _marks(rows: Iterable[Row]) -> dict[str, dict[str, list[str]]]:
    """Marks on single SAEs: kind, then reason, then the SAEs' names."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for mark in row.marks:
            names = found[mark.kind][mark.reason]
            names.extend(name for name in row.subject if row.of == "sae" and name not in names)
    return found


def _block(
    axes: Mapping[str, Axis],
    rows: Sequence[Row],
    declared: Mapping[str, Metric],
    axis: str,
    marks: Mapping[str, Mapping[str, Sequence[str]]],
    level: float,
    *,
    titled: bool,
) -> Block:
    labels: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        labels[row.label].append(row)
    unfit = {name for names in marks.get("unfit", {}).values() for name in names}
    caveat = {name for names in marks.get("caveat", {}).values() for name in names}
    tables = []
    for label, group in labels.items():
        table = _table(label, group, declared.get(group[0].metric), axis, level)
        marked = [
            replace(
                line,
                unfit=line.unfit or not unfit.isdisjoint(line.subjects),
                caveat=line.caveat or not caveat.isdisjoint(line.subjects),
            )
            for line in table.lines
        ]
        tables.append(replace(table, lines=tuple(marked)))
    joined, unlike = _join_floors(tables, {label: group[0] for label, group in labels.items()})
    words = [str(value) if name == "arch" else f"{name} {value}" for name, value in axes.items()]
    tokens: dict[Axis, set[float]] = defaultdict(set)
    for row in rows:
        for member in row.members:
            if "train_tokens" in member and axis in member:
                tokens[member[axis]].add(float(member["train_tokens"]))
    return Block(
        title=", ".join(words + ([_say_data(rows[0].data)] if titled else [])),
        axes=axes,
        data=rows[0].data,
        tables=tuple(sorted(joined, key=lambda table: _position(table, declared))),
        notes=(*_notes(rows, marks), *unlike),
        train_tokens={width: tuple(sorted(seen)) for width, seen in tokens.items()},
    )


def _table(
    label: str, rows: Sequence[Row], metric: Metric | None, axis: str, level: float
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
        lines=tuple(_line(key, lines[key], scores, level) for key in sorted(lines, key=_order)),
        case_seeds=len({row.seed for row in rows}),
        row_axis=axis if any(row.along(axis) for row in rows) else "",
    )


def _keyed(rows: Sequence[Row], axis: str) -> Iterator[tuple[Key, Row]]:
    """Each row with the line it belongs to; SAEs with the same axes are told apart by name."""
    subjects: dict[object, set[tuple[str, ...]]] = defaultdict(set)
    for row in rows:
        subjects[row.along(axis), row.along(SEED), row.seed, row.score].add(row.subject)
    doubled = {place[0] for place, found in subjects.items() if len(found) > 1}  # type: ignore[index]
    for row in rows:
        key = row.along(axis)
        yield (row.subject if key in doubled else key), row


def _line(
    key: Key,
    rows: Mapping[str, Sequence[Row]],
    scores: Iterable[Score],
    level: float,
) -> Line:
    folded = {name: _cell(each, level) for name, each in rows.items()}
    for score in scores:
        null = folded.get(score.null or "")
        if score.name in folded and null is not None:
            folded[score.name] = replace(folded[score.name], null=null.estimate)
    every = [row for each in rows.values() for row in each]
    subjects = tuple(dict.fromkeys(name for row in every for name in row.subject))
    kinds = {mark.kind for row in every for mark in row.marks}
    title = " → ".join(str(value) for value in key)
    return Line(
        key=key,
        title=title or " … ".join(dict.fromkeys((subjects[0], subjects[-1]))),
        cells=folded,
        subjects=subjects,
        cases=tuple(dict.fromkeys(_who(row) for row in every)),
        unfit="unfit" in kinds,
        caveat="caveat" in kinds,
    )


def _cell(rows: Sequence[Row], level: float) -> Cell:
    measured = [row for row in rows if row.status == "measured" and row.value is not None]
    lost = len(rows) - len(measured)
    told = fold(row.reference for row in rows)
    if measured:
        return Cell(_fold(measured, level), "measured", lost, published=told)
    worst: tuple[Status, ...] = ("failed", "missing", "undefined")
    status: Status = next((s for s in worst if any(r.status == s for r in rows)), "missing")
    return Cell(None, status, lost, published=told)


def _fold(rows: Sequence[Row], level: float) -> Estimate:
    """One estimate from the measured values of one score on one line."""
    values: dict[Key, list[float]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: _order(row.along(SEED))):
        values[row.along(SEED)].append(float(row.value or 0.0))
    errors = [row.stderr for row in rows if row.stderr is not None]
    stderr = fsum(errors) / len(errors) if len(errors) == len(rows) else None
    first, seeds = rows[0], rows[0].along(SEED)
    if first.of == "group" and len(seeds) > 1:
        counted = first.n is not None and (first.unit or "").startswith(SEED)
        mean = fsum(float(row.value or 0.0) for row in rows) / len(rows)
        return over_group(mean, stderr, first.n if counted and first.n else len(seeds), level=level)
    if first.of == "pair" and len(seeds) == 2:
        return over_pairs({(pair[0], pair[-1]): each for pair, each in values.items()}, level=level)
    return over_seeds(values, level=level, stderr=stderr, n=first.n, unit=first.unit)


def _join_floors(
    tables: Sequence[Table], rows: Mapping[str, Row]
) -> tuple[list[Table], list[Note]]:
    """Put beside each step of a ladder the same scores between seeds of one size."""
    floors = [
        table
        for table in tables
        if rows[table.label].of == "pair" and table.over.endswith(f"pairs:{SEED}")
    ]
    used: set[str] = set()
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
            reason = f"'{alike[0].label}' is no floor of it: other settings ({differ})"
            notes.append(Note("floor", reason, (table.label,)))
        used |= {floor.label for floor in fits[:1]}
        at = {line.key: line.cells for floor in fits[:1] for line in floor.lines}
        joined.append(replace(table, lines=tuple(_floored(line, at) for line in table.lines)))
    return [replace(t, is_floor=t.label in used) for t in joined], notes


def _floored(line: Line, at: Mapping[Key, Mapping[str, Cell]]) -> Line:
    small, large = at.get(line.key[:1], {}), at.get(line.key[-1:], {})

    def joined(name: str, cell: Cell) -> Cell:
        return replace(
            cell,
            floor=large[name].estimate if name in large else None,
            floor_small=small[name].estimate if name in small else None,
        )

    return replace(line, cells={name: joined(name, cell) for name, cell in line.cells.items()})


def _notes(rows: Sequence[Row], marks: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[Note]:
    here = dict.fromkeys(name for row in rows for name in row.subject)
    for kind in ("unfit", "caveat"):
        for reason, names in marks.get(kind, {}).items():
            if on := tuple(name for name in names if name in here):
                yield Note(kind, reason, on)
    spoken: dict[tuple[str, str], list[str]] = defaultdict(list)
    gaps: dict[tuple[str, str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        who = _who(row)
        for mark in row.marks:
            if (mark.kind == "note" or row.of != "sae") and who not in spoken[
                mark.kind, mark.reason
            ]:
                spoken[mark.kind, mark.reason].append(who)
        if row.status != "measured":
            gaps[row.status, row.label, row.reason or ""][who].append(row.score or "")
    for (kind, reason), names in spoken.items():
        yield Note(kind, reason, tuple(names))
    for (status, label, reason), cases in gaps.items():
        scores = list(dict.fromkeys(score for each in cases.values() for score in each))
        failed = status in ("failed", "missing")
        about = () if failed or len(scores) > FEW else tuple((label, score) for score in scores)
        named = ", ".join(scores) if len(scores) <= FEW else f"{len(scores)} scores"
        what = label if failed else f"{label} {named}"
        yield Note(status, f"{what}: {reason}" if reason else what, tuple(cases), about)


def _say_data(data: str | None) -> str:
    return "no data" if data is None else f"data {data}"


def _who(row: Row) -> str:
    if row.of == "group":
        return ", ".join(row.subject)
    return " → ".join(row.subject)


def _settings(row: Row) -> str:
    return json.dumps(dict(row.settings or {}), sort_keys=True, default=str)


def _differing(a: Row, b: Row) -> str:
    one, two = dict(a.settings or {}), dict(b.settings or {})
    return ", ".join(sorted(k for k in one.keys() | two.keys() if one.get(k) != two.get(k)))


def _order(key: Key) -> tuple[tuple[int, float, str], ...]:
    """Numbers by value, then names as they are spelt."""
    return tuple(
        (0, float(each), "") if isinstance(each, int | float) else (1, 0.0, each) for each in key
    )


def _position(table: Table, declared: Mapping[str, Metric]) -> int:
    """Where a table stands in its block: in the order in which metrics are declared."""
    names = list(declared)
    return names.index(table.metric) if table.metric in declared else len(names)
