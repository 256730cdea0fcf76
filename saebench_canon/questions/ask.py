"""The answers to a run's questions on each block of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from saebench_canon.errors import CanonError
from saebench_canon.plugin.question import (
    NOT_JUDGED,
    NOT_MEASURABLE,
    Answer,
    Margins,
    Question,
)
from saebench_canon.plugin.row import Axis
from saebench_canon.tables.summary import Block, Summary


def answers_of(
    summary: Summary, questions: Mapping[str, Question], margins_by_question: Mapping[str, Margins]
) -> tuple[Answer, ...]:
    """The answers to the questions in `margins_by_question`, on each block with measured cases."""
    return tuple(
        replace(answer, suite=summary.suite)
        for block in summary.begun
        for name, question in questions.items()
        if name in margins_by_question
        for answer in _answers(block, question, margins_by_question[name])
    )


def _answers(block: Block, question: Question, margins: Margins) -> Iterator[Answer]:
    """A question's answers on a block; a plugin's rule that fails does not stop the others."""
    known = {name: margin for name, margin in margins.items() if name in question.defaults}
    try:
        for answer in question.ask(block, **known):
            yield _with_seeds(answer, block)
    except Exception as error:  # a plugin's own code
        reason = str(error) if isinstance(error, CanonError) else f"{type(error).__name__}: {error}"
        yield Answer(
            NOT_JUDGED, f"not judged: the rule failed ({reason}).", question=question.name,
            axes=block.axes, data=block.data, margins={**question.defaults, **known},
        )  # fmt: skip


def _with_seeds(answer: Answer, block: Block) -> Answer:
    """The answer, unless it rests on SAEs that are no seeds of one another; a note if unknown."""
    sizes: list[Axis | None] = [answer.smaller, answer.size]
    sizes = [size for size in sizes if size is not None] or [None]
    reasons = [block.no_seeds[size] for size in sizes if size in block.no_seeds]
    if reasons and answer.answer != NOT_MEASURABLE:
        sentence = f"not judged: the SAEs are no seeds of one another: {reasons[0]}."
        return replace(answer, answer=NOT_JUDGED, sentence=sentence, notes=())
    if answer.answer != NOT_JUDGED and any(size in block.seeds_unknown for size in sizes):
        return replace(answer, notes=(*answer.notes, "no seed is recorded"))
    return answer
