"""The tables of a run as values: blocks of tables of lines of cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from saebench_canon.plugin.metric import Score
from saebench_canon.plugin.published import say_sources
from saebench_canon.plugin.report import Tables
from saebench_canon.plugin.row import Axis, ListedCase
from saebench_canon.plugin.table_line import Estimate, Line
from saebench_canon.tables.stats import LEVEL

if TYPE_CHECKING:
    import pandas as pd

FIRST = 4  # columns shown for a metric without headlines


@dataclass(frozen=True)
class Table:
    """One metric under one label: its columns, its lines and the source of its intervals."""

    label: str
    metric: str
    version: int | None
    about: str
    over: str
    columns: tuple[Score, ...]
    lines: tuple[Line, ...]
    case_seeds: int = 1
    is_floor: bool = False  # its scores are already shown as floors in another table
    row_axis: str = ""

    @property
    def headlines(self) -> tuple[Score, ...]:
        """The columns a reader sees first: those marked as headlines, or else the first four."""
        columns = self.full
        marked = tuple(column for column in columns if column.headline)
        return marked or columns[:FIRST]

    @property
    def full(self) -> tuple[Score, ...]:
        """All columns except those that are shown as the null of another."""
        nulls = {column.null for column in self.columns}
        return tuple(column for column in self.columns if column.name not in nulls)

    @property
    def begun(self) -> bool:
        """Whether any of its cases was measured or failed."""
        cells = [cell for line in self.lines for cell in line.cells.values()]
        return any(cell.status != "missing" for cell in cells)

    def interval(self, columns: Iterable[Score] | None = None) -> str:
        """One sentence on the number of seeds and the kind of interval of the columns shown."""
        names = {column.name for column in (self.full if columns is None else columns)}
        cells = [cell for line in self.lines for name, cell in line.cells.items() if name in names]
        kinds = Counter(_say_interval(cell.estimate) for cell in cells if cell.estimate)
        sentences = [kind for kind, _ in kinds.most_common()]
        floors = {cell.floor.kind for cell in cells if cell.floor}
        if "jackknife" in floors and not any("jackknife" in kind for kind in sentences):
            sentences.append("floors by jackknife")
        if self.case_seeds > 1 and sentences:
            sentences.append(f"{self.case_seeds} case seeds averaged within each training seed")
        return "; ".join(sentences)

    def sources(self, columns: Iterable[Score] | None = None) -> str:
        """Who published the reference values of the columns shown."""
        names = [column.name for column in (self.full if columns is None else columns)]
        cells = {name: [line.cells.get(name) for line in self.lines] for name in names}
        return say_sources(
            {
                name: [cell.published for cell in published if cell is not None and cell.published]
                for name, published in cells.items()
            }
        )


@dataclass(frozen=True)
class Note:
    """A remark below a block: the reason for a mark or a gap, and who has it."""

    kind: str  # unfit | caveat | note | failed | missing | undefined | floor
    reason: str
    subjects: tuple[str, ...]  # names of SAEs or cases
    scores: tuple[tuple[str, str], ...] = ()  # label and score, if it is about these only


@dataclass(frozen=True)
class Block:
    """All tables of one architecture: SAEs that differ in width and seed only."""

    title: str
    axes: Mapping[str, Axis]
    data: str | None
    tables: tuple[Table, ...]
    notes: tuple[Note, ...]
    saes: Mapping[Axis, tuple[str, ...]] = field(default_factory=dict)  # by size
    train_tokens: Mapping[Axis, tuple[float, ...]] = field(default_factory=dict)
    no_seeds: Mapping[Axis | None, str] = field(default_factory=dict)
    seeds_unknown: Collection[Axis | None] = ()
    cases: tuple[ListedCase, ...] = ()  # measured: pairs of families and steps, and single SAEs
    scores: Mapping[tuple[str, str], float] = field(default_factory=dict)  # of these, by id
    read: Tables | None = None
    _made: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What several questions read or derive from this block, made for the first of them."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def score(self, case: ListedCase, name: str) -> float | None:
        """One score of a case of a family; None if it is undefined."""
        return self.scores.get((case.id or "", name))

    def table(self, case: ListedCase, name: str) -> pd.DataFrame | None:
        """One table of a case of a family; None if its record has none."""
        read, case_id = self.read, case.id or ""
        table: pd.DataFrame | None = None
        if read is not None:
            table = self.once((case_id, name), lambda: read(case_id, name))
        return table

    def of(self, metric: str) -> Iterator[Table]:
        """The tables of a metric, less those that only serve as floors."""
        return (table for table in self.tables if table.metric == metric and not table.is_floor)

    @property
    def begun(self) -> bool:
        """Whether any of its cases was measured or failed."""
        return any(table.begun for table in self.tables) or bool(self.cases)

    def reasons(self, kind: str, line: Line) -> tuple[str, ...]:
        """Reasons for one kind of mark on a line, each with the SAEs or cases that have it."""
        names = {*line.subjects, *line.cases}
        return tuple(
            f"{note.reason} ({', '.join(marked)})"
            for note in self.notes
            if note.kind == kind and (marked := [name for name in note.subjects if name in names])
        )


@dataclass(frozen=True)
class Summary:
    """The tables of a run."""

    suite: str
    blocks: tuple[Block, ...]
    level: float = LEVEL
    data: Mapping[str, str] = field(default_factory=dict)  # what each data table gives

    @property
    def begun(self) -> tuple[Block, ...]:
        """The blocks with a case that was measured or failed."""
        return tuple(block for block in self.blocks if block.begun)


def _say_interval(estimate: Estimate) -> str:
    if estimate.unit == "SAE":
        return f"{estimate.n} SAEs that are no seeds of one another, no interval"
    match estimate.kind:
        case "t":
            return f"{estimate.seeds} seeds, ± by Student's t over them"
        case "jackknife":
            return f"{estimate.seeds} seeds, ± by leave-one-out jackknife"
        case "values" if len(estimate.values) > 1:
            return f"{estimate.seeds} seeds: each value, no interval"
        case "values":
            return f"{estimate.seeds} seeds: no interval"
        case "bootstrap":
            return "one seed, ± over documents, conditional on this SAE"
        case _:
            return "one seed, no interval"
