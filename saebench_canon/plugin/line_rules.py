"""Rules that judge each line of a table, unless something keeps it from being judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from saebench_canon.plugin.question import NOT_JUDGED, Answer, Margins, Rule

if TYPE_CHECKING:
    from saebench_canon.plugin.table_line import Block, Cell, Line

Judge = Callable[["Line", Margins], Answer]
Notes = Callable[["Block", "Line"], Iterable[str]]


def by_line(
    metric: str,
    judge: Judge,
    *,
    scores: Iterable[str] = (),
    steps: bool = False,
    notes: Notes | None = None,
) -> Rule:
    """A rule that judges each line of a metric's tables by itself.

    `judge` is called if the line's SAEs are fit to be judged and each of `scores` has an estimate;
    with `steps`, only on lines from a smaller to a larger SAE. `notes` are printed with the
    sentence, after the caveats of the line's SAEs.
    """
    needed = tuple(scores)

    def rule(block: Block, margins: Margins) -> Iterator[Answer]:
        tables = list(block.of(metric))
        lines = [(t, line) for t in tables for line in t.lines if len(line.key) > 1 or not steps]
        if not lines:
            measured = f"{metric} of a smaller and a larger SAE" if steps else metric
            yield Answer(NOT_JUDGED, f"not judged: {measured} was not measured.")
        for table, line in lines:
            answer = unfit(block, line) or _lacking(line, needed) or judge(line, margins)
            caveats = block.reasons("caveat", line)
            added = tuple(notes(block, line)) if notes else ()
            position = line.title if len(tables) == 1 else f"{line.title} ({table.label})"
            yield replace(answer, position=position, notes=(*caveats, *added, *answer.notes))

    return rule


def unfit(block: Block, line: Line) -> Answer | None:
    """The answer on a line with an SAE that is not fit to be judged; None if all are fit."""
    if not line.unfit:
        return None
    first, *more = block.reasons("unfit", line)
    rest = f", and {len(more)} more (†)" if more else ""
    return Answer.on(line, NOT_JUDGED, f"not judged: {first}{rest}.")


def why_missing(name: str, cell: Cell | None) -> str:
    """Why a score has no value."""
    if cell is None or cell.status == "missing":
        return f"{name} was not measured."
    return f"{name} {'failed' if cell.status == 'failed' else 'is undefined'} (see the notes)."


def _lacking(line: Line, scores: Iterable[str]) -> Answer | None:
    for name in scores:
        cell = line.cells.get(name)
        if cell is None or cell.estimate is None:
            return Answer.on(line, NOT_JUDGED, f"not judged: {why_missing(name, cell)}")
    return None
