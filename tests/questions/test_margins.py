"""What the margins are where nobody sets them: the one place in the tests that states defaults."""

from __future__ import annotations

import pytest
from stated_margins import STATED

from saebench_canon.plugin.question import NOT_JUDGED, Margin
from saebench_canon.plugin.registry import load_registry

QUESTIONS = load_registry().questions
MARGINS = [(name, margin) for name, question in QUESTIONS.items() for margin in question.margins]


@pytest.mark.parametrize(("question", "margin"), MARGINS, ids=lambda x: getattr(x, "name", x))
def test_a_default_is_the_stated_one(question: str, margin: Margin) -> None:
    assert margin.default == STATED[question][margin.name]


def test_every_margin_is_stated() -> None:
    assert {name: set(question.defaults) for name, question in QUESTIONS.items()} == {
        name: set(margins) for name, margins in STATED.items()
    }


@pytest.mark.parametrize(("question", "margin"), MARGINS, ids=lambda x: getattr(x, "name", x))
def test_a_default_is_one_that_a_suite_may_set(question: str, margin: Margin) -> None:
    low, high = margin.between
    assert low <= margin.default <= high
    assert margin.meaning[0].islower()
    assert not margin.meaning.endswith(".")


def test_questions_stand_in_the_order_that_they_are_read_in() -> None:
    assert list(QUESTIONS) == ["complete?", "atomic?", "unique?", "canonical?"]


def test_the_words_are_those_of_the_contract() -> None:
    open_ended = ("no", "none-found", "undecided", "not-measurable", NOT_JUDGED)
    assert {name: question.words for name, question in QUESTIONS.items()} == {
        "complete?": open_ended,
        "atomic?": open_ended,
        "unique?": ("same", "graded", "not-measurable", NOT_JUDGED),
        "canonical?": ("listed", NOT_JUDGED),
    }
