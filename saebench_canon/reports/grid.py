"""The answers as a grid: a line for each dictionary size, a column for each question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from saebench_canon.plugin.question import Answer
from saebench_canon.plugin.row import Axis
from saebench_canon.tables.summary import Block, Summary

NOTHING = "–"  # a question is not asked of this size


@dataclass(frozen=True)
class Grid:
    """Cells below a head, and what the cells of each question say."""

    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    legend: Mapping[str, str]


def grid(summary: Summary, answers: Sequence[Answer]) -> Grid | None:
    """The answers to all questions; None where no question was asked."""
    questions = tuple(dict.fromkeys(answer.question for answer in answers))
    if not questions:
        return None
    lines = tuple(
        line
        for block in summary.begun
        for line in _lines(block, answers_on(block, answers), questions)
    )
    legend = {answer.question: answer.about for answer in answers if answer.about}
    return Grid(("", "SAEs", *questions), lines, legend)


def answers_on(block: Block, answers: Sequence[Answer]) -> list[Answer]:
    """The answers that are about a block."""
    block_key = (block.data, *block.axes.items())
    return [answer for answer in answers if (answer.data, *answer.axes.items()) == block_key]


def _lines(
    block: Block, answers: Sequence[Answer], questions: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """One line for each size; an answer about a step stands with the smaller size."""
    cells: dict[tuple[Axis | None, str], list[str]] = defaultdict(list)
    for answer in answers:
        size = answer.size if answer.smaller is None else answer.smaller
        cell = answer.short or answer.answer.replace("-", " ")
        if cell not in cells[size, answer.question]:
            cells[size, answer.question].append(cell)
    sizes = dict.fromkeys(block.saes) | dict.fromkeys(s for s, _ in cells if s is not None)
    for size in sizes or (None,):
        name = " ".join(part for part in (block.title, "" if size is None else str(size)) if part)
        shown = [
            "; ".join(cells.get((size, question)) or cells.get((None, question)) or [NOTHING])
            for question in questions
        ]
        yield name, str(len(block.saes.get(size, ()))) if size is not None else "", *shown
