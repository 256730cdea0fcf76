"""A question: a rule that turns the scores of a run into answers, with its margins.

    Question(
        "sparse?",
        needs=("fidelity.l0",),
        answers=("yes", "no"),
        margins=(Margin("most", 32.0, "active latents a token up to which it is sparse"),),
        rule=by_line("fidelity", sparse, scores=("l0",)),
    )

A rule gets a block of tables and its margins by name, and yields an answer for each dictionary
size, or for each step between two sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError, nearest

if TYPE_CHECKING:
    from saebench_canon.plugin.row import Axis
    from saebench_canon.plugin.table_line import Block, Cell, Line

NOT_JUDGED = "not-judged"  # an answer of every question: a score that it needs is missing
NOT_MEASURABLE = "not-measurable"

Margins = Mapping[str, float]


@dataclass(frozen=True)
class Margin:
    """A number that decides an answer: its default, its meaning and its range."""

    name: str
    default: float
    meaning: str
    between: tuple[float, float] = (-math.inf, math.inf)  # both ends allowed


IN_FAMILIES = ("family", "steps")  # pairs that questions read, and that are in no table


@dataclass(frozen=True)
class Planned:
    """Cases that a question needs besides the suite's own: a metric, over what, and its peers."""

    metric: str
    over: str
    peers: str | None = None


@dataclass(frozen=True)
class Answer:
    """One of a question's words for one dictionary size or step, and its sentence.

    `short` is what a grid of sizes and questions says of it, its word if nothing. `numbers` are the
    cells that the sentence rests on, by score; `notes` are printed with it. The fields after these
    are set by the question and by the run.
    """

    answer: str
    sentence: str
    size: Axis | None = None  # of a pair the larger
    smaller: Axis | None = None
    position: str = ""  # the size or step as it is printed
    short: str = ""
    numbers: Mapping[str, Cell] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    question: str = ""
    about: str = ""  # what is asked, and what `short` says
    suite: str = ""
    axes: Mapping[str, Axis] = field(default_factory=dict)
    data: str | None = None
    margins: Margins = field(default_factory=dict)

    @classmethod
    def on(cls, line: Line, answer: str, sentence: str, *scores: str) -> Answer:
        """An answer on one line that rests on these scores."""
        pair = len(line.key) == 2
        return cls(
            answer,
            sentence,
            size=line.key[-1] if line.key else line.title,
            smaller=line.key[0] if pair else None,
            position=line.title,
            numbers={
                name: cell for name in scores if (cell := line.cells.get(name)) and cell.estimate
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """The answer as `show --json --answers` prints it."""
        return {
            "suite": self.suite,
            "question": self.question,
            "size": self.size,
            "smaller": self.smaller,
            "axes": dict(self.axes),
            "answer": self.answer,
            "sentence": self.sentence,
            "numbers": {name: _number(cell) for name, cell in self.numbers.items()},
            "margins": dict(self.margins),
        }


def _number(cell: Cell) -> dict[str, float | None]:
    estimate = cell.estimate
    return {
        "value": None if estimate is None else estimate.value,
        "lo": None if estimate is None else estimate.lo,
        "hi": None if estimate is None else estimate.hi,
        "floor": None if cell.floor is None else cell.floor.value,
        "null": None if cell.null is None else cell.null.value,
    }


Rule = Callable[["Block", Margins], Iterable[Answer]]


@dataclass(frozen=True)
class Question:
    """A named rule, the scores it needs, its answers, and its margins."""

    name: str
    needs: tuple[str, ...]  # METRIC or METRIC.SCORE
    answers: tuple[str, ...]
    rule: Rule
    margins: tuple[Margin, ...] = ()
    help: str = ""
    cells: str = ""  # what the short answers in a grid say
    plans: tuple[Planned, ...] = ()  # planned by itself where a suite asks the question

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that it reads."""
        return tuple(dict.fromkeys(need.partition(".")[0] for need in self.needs))

    @property
    def words(self) -> tuple[str, ...]:
        """All possible answers."""
        return tuple(dict.fromkeys((*self.answers, NOT_JUDGED)))

    @property
    def defaults(self) -> dict[str, float]:
        """The default of each margin."""
        return {margin.name: margin.default for margin in self.margins}

    def is_for(self, metrics: Collection[str]) -> bool:
        """Whether it reads any of these metrics."""
        return not set(self.metrics).isdisjoint(metrics)

    def ask(self, block: Block, **margins: float) -> tuple[Answer, ...]:
        """Its answers on a block of tables, with default margins where none are passed."""
        for name in margins:
            if name not in self.defaults:
                raise CanonError(f"question '{self.name}' has no margin '{name}'",
                                 hint=nearest(name, self.defaults))  # fmt: skip
        limits = {**self.defaults, **margins}
        about = " ".join(text for text in (self.help, self.cells) if text)
        return tuple(
            self._checked(replace(answer, question=self.name, about=about, axes=block.axes,
                                  data=block.data, margins=limits))
            for answer in self.rule(block, limits)
        )  # fmt: skip

    def _checked(self, answer: Answer) -> Answer:
        if answer.answer not in self.words:
            raise CanonError(
                f"question '{self.name}' answered '{answer.answer}', which it does not declare",
                hint=nearest(answer.answer, self.words),
            )
        return answer
