"""The lines of tables that a question reads, with each score's estimate, null and floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from saebench_canon.plugin.metric import Unit
from saebench_canon.plugin.published import Published
from saebench_canon.plugin.row import Axis, ListedCase, Status

if TYPE_CHECKING:
    import pandas as pd

Key = tuple[Axis, ...]
Kind = Literal["t", "jackknife", "bootstrap", "values", "point", "welch"]


@dataclass(frozen=True)
class Estimate:
    """A number, the half-width of its interval if it has one, and the units behind both.

    `kind` says where the interval is from: "t" over training seeds, "jackknife" leaving out one
    seed, "bootstrap" within a single SAE (conditional on it), "welch" for a difference; "values"
    (two seeds, or SAEs that are no seeds of one another: the unit is "SAE") and "point" have none.
    `n` counts `unit`; `values` are the replicates.
    """

    value: float
    half_width: float | None
    n: int | None
    unit: Unit | Literal["SAE"]
    kind: Kind
    values: tuple[float, ...]
    stderr: float | None = None
    df: float = math.inf
    ends: tuple[float, float] | None = None  # of an interval that is not symmetric

    @property
    def lo(self) -> float | None:
        """The lower end of the interval."""
        if self.ends is not None:
            return self.ends[0]
        return None if self.half_width is None else self.value - self.half_width

    @property
    def hi(self) -> float | None:
        """The upper end of the interval."""
        if self.ends is not None:
            return self.ends[1]
        return None if self.half_width is None else self.value + self.half_width

    @property
    def conditional(self) -> bool:
        """Whether the interval is for this one SAE only, not for other training seeds."""
        return self.kind == "bootstrap"

    @property
    def seeds(self) -> int:
        """The number of training seeds."""
        return self.n or 1 if self.unit == "training seed" else 1


@dataclass(frozen=True)
class Cell:
    """One score on one line: its estimate, or why there is none, its null and its floors."""

    estimate: Estimate | None
    status: Status
    lost: int = 0  # planned cases without a value
    null: Estimate | None = None
    floor: Estimate | None = None  # at the larger (or only) width
    floor_small: Estimate | None = None  # at the smaller width
    published: Published | None = None


@dataclass(frozen=True)
class Line:
    """The row of a table: a dictionary size, a step between two, or an SAE by its name."""

    key: Key
    title: str
    cells: Mapping[str, Cell]
    subjects: tuple[str, ...]
    cases: tuple[str, ...]
    unfit: bool = False
    caveat: bool = False


class Table(Protocol):
    """One metric under one label."""

    @property
    def label(self) -> str:
        """The name of its table in the suite."""

    @property
    def lines(self) -> Sequence[Line]:
        """Its lines, smaller dictionaries first."""


class Block(Protocol):
    """All tables of SAEs that differ in width and seed only."""

    @property
    def axes(self) -> Mapping[str, Axis]:
        """The axes that they have in common."""

    @property
    def data(self) -> str | None:
        """The data that they were measured on."""

    @property
    def train_tokens(self) -> Mapping[Axis, Sequence[float]]:
        """The training tokens of each dictionary size, if known."""

    @property
    def no_seeds(self) -> Mapping[Axis | None, str]:
        """The sizes whose SAEs cannot be seeds of one another, with the reason."""

    @property
    def seeds_unknown(self) -> Collection[Axis | None]:
        """The sizes with several SAEs of which not each records its seed."""

    @property
    def cases(self) -> Sequence[ListedCase]:
        """The pairs of families and steps that were measured, in no table, and single SAEs."""

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What several questions read or derive from this block, made for the first of them."""

    def score(self, case: ListedCase, name: str) -> float | None:
        """One score of such a case; None if it is undefined."""

    def table(self, case: ListedCase, name: str) -> pd.DataFrame | None:
        """One table of such a case; None if its record has none."""

    def of(self, metric: str) -> Iterator[Table]:
        """The tables of a metric, without those that only serve as floors."""

    def reasons(self, kind: str, line: Line) -> tuple[str, ...]:
        """Reasons of one kind of mark (`unfit`, `caveat`) on a line's SAEs or cases."""
