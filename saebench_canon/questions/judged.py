"""What withholds an answer, and the notes that are printed with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from saebench_canon.plugin.question import NOT_JUDGED, Answer
from saebench_canon.plugin.row import Axis
from saebench_canon.plugin.table_line import Block, Cell, Estimate, Line
from saebench_canon.questions.fitness import fitness
from saebench_canon.questions.intervals import Interval
from saebench_canon.questions.kinship import Kin


def line_of(block: Block, key: tuple[Axis, ...], subjects: Sequence[str]) -> Line:
    """The sizes that an answer is about, with their SAEs."""
    title = " → ".join(str(size) for size in key)
    return Line(key, title, cells={}, subjects=tuple(subjects), cases=())


def unfit_answer(block: Block, line: Line) -> Answer | None:
    """The answer where an SAE is not fit to be judged; None if all are fit."""
    reasons = block.reasons("unfit", line)
    if not reasons:
        return None
    first, *more = reasons
    rest = f", and {len(more)} more (†)" if more else ""
    return Answer.on(line, NOT_JUDGED, f"not judged: {first}{rest}.")


def notes_on(block: Block, line: Line) -> tuple[str, ...]:
    """The caveats of the SAEs, and whether their fitness is unknown."""
    return (*block.reasons("caveat", line), *fitness(block, line))


def cell(interval: Interval, floor: float | None = None, null: float | None = None) -> Cell:
    """A number with its interval, floor and null, as `show --json --answers` prints them."""

    def point(value: float | None) -> Estimate | None:
        if value is None:
            return None
        return Estimate(value, None, None, "training seed", "point", (value,))

    known = math.isfinite(interval.lo) and math.isfinite(interval.hi)
    estimate = Estimate(
        interval.value, None, None, "training seed", "point", (interval.value,),
        ends=(interval.lo, interval.hi) if known else None,
    )  # fmt: skip
    return Cell(estimate, "measured", null=point(null), floor=point(floor))


def notes_on_kin(kin: Kin, sizes: Sequence[Axis]) -> Iterator[str]:
    """Which SAEs began from the same rows, whose rows share a direction, and duplicates."""
    for size in sizes:
        for start in kin.starts[size]:
            if len(start) > 1:
                yield f"{', '.join(start)} began from the same rows and count as one"
    names = [name for size in sizes for name in kin.sizes[size]]
    unknown = [name for name in names if name in kin.unknown_starts]
    if unknown and any(len(kin.sizes[size]) > 1 for size in sizes):
        yield f"whether they began from the same rows is not known ({', '.join(unknown)})"
    if not kin.shared.isdisjoint(names):
        yield "rows share a direction; they are compared without it"
    doubled = sum(kin.duplicates[name] for name in names)
    if doubled:
        yield f"{doubled} {'duplicate does' if doubled == 1 else 'duplicates do'} not count"
