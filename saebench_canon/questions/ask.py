"""The answers to a run's questions on each block of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from saebench_canon.errors import CanonError
from saebench_canon.plugin.question import NOT_JUDGED, Answer, Margins, Question
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
        yield from question.ask(block, **known)
    except Exception as error:  # a plugin's own code
        reason = str(error) if isinstance(error, CanonError) else f"{type(error).__name__}: {error}"
        yield Answer(
            NOT_JUDGED, f"not judged: the rule failed ({reason}).", question=question.name,
            axes=block.axes, data=block.data, margins={**question.defaults, **known},
        )  # fmt: skip
