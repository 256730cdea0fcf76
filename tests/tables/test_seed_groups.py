"""SAEs along the axis `seed` whose files say that they are no seeds: no interval, no verdict."""

from __future__ import annotations

from typing import Any

import made_up_run as run
import pytest

from saebench_canon.plugin.question import NOT_JUDGED
from saebench_canon.plugin.registry import load_registry
from saebench_canon.questions.ask import answers_of
from saebench_canon.reports.terminal import text
from saebench_canon.tables.summarise import summarise
from saebench_canon.tables.summary import Summary

Recorded = dict[str, Any]


def summary(recorded: Recorded | None, *, sizes: tuple[int, ...] = run.WIDTHS) -> Summary:
    """The made-up run; files record these facts, and the axis's value where they are callable."""
    rows = run.rows(archs=("relu",))
    for row in rows:
        row["members"] = [_with(member, recorded, sizes) for member in row["members"]]
    return summarise(rows, run.declared(), tables=run.tables)


def _with(member: Recorded, recorded: Recorded | None, sizes: tuple[int, ...]) -> Recorded:
    if recorded is None:
        return member
    facts = {
        key: value(member["seed"]) if callable(value) else value for key, value in recorded.items()
    }
    fine = {"seed": member["seed"]}
    return {**member, "recorded": facts if member["width"] in sizes else fine}


CASES = {
    "the same seed": {"seed": 42},
    "a sweep": {"seed": 0, "l1_coefficient": lambda seed: 2.0**seed},
    "a sweep with seeds": {"seed": lambda seed: seed, "lr": lambda seed: 0.1 * (seed + 1)},
    "checkpoints": {"training_tokens": lambda seed: 1000 * (seed + 1)},
    "one twice": {"seed": lambda seed: min(seed, 1)},
}


@pytest.mark.parametrize("name", CASES)
def test_no_interval_and_no_answer_rests_on_them(name: str) -> None:
    result = summary(CASES[name])
    for table in result.blocks[0].tables:
        for line in table.lines:
            for cell in line.cells.values():
                for estimate in (cell.estimate, cell.floor, cell.floor_small):
                    assert estimate is None or (estimate.half_width, estimate.unit) == (None, "SAE")
    questions = load_registry().questions
    answers = answers_of(result, questions, {name: q.defaults for name, q in questions.items()})
    assert {answer.answer for answer in answers} == {NOT_JUDGED}
    assert all("no seeds of one another" in answer.sentence for answer in answers)
    shown = text(result, answers)
    assert "Student" not in shown
    assert "jackknife" not in shown
    assert "3 SAEs that are no seeds of one another, no interval" in shown
    assert "‡ caveat: no seeds of one another" in shown


def test_what_is_said_of_seeds_stays() -> None:
    recorded, unrecorded, before = (
        summary({"seed": lambda seed: seed}), summary({}), summary(None)
    )  # fmt: skip
    for result in (recorded, unrecorded):
        assert result.blocks[0].tables == before.blocks[0].tables
    assert recorded.blocks[0].notes == before.blocks[0].notes
    assert unrecorded.blocks[0].notes[0].reason.startswith("not each file records its seed")


def test_an_answer_on_seeds_that_nobody_recorded_says_so() -> None:
    questions = load_registry().questions
    margins = {name: question.defaults for name, question in questions.items()}
    unrecorded, recorded = (
        answers_of(summary(facts), questions, margins) for facts in ({}, {"seed": lambda s: s})
    )
    assert [answer.answer for answer in unrecorded] == [answer.answer for answer in recorded]
    for answer, other in zip(unrecorded, recorded, strict=True):
        judged = answer.answer != NOT_JUDGED
        assert answer.notes == (*other.notes, *(["no seed is recorded"] if judged else []))


def test_sizes_with_seeds_are_judged_beside_one_without() -> None:
    questions = load_registry().questions
    margins = {name: question.defaults for name, question in questions.items()}
    result = summary({"seed": 42}, sizes=(512,))
    spoilt = {
        (answer.smaller, answer.size)
        for answer in answers_of(result, questions, margins)
        if "no seeds of one another" in answer.sentence
    }
    assert {size for pair in spoilt for size in pair if size} >= {512}
    assert all(512 in pair for pair in spoilt)
    fidelity = next(result.blocks[0].of("fidelity"))
    estimates = [line.cells["l0"].estimate for line in fidelity.lines]
    units = [estimate.unit for estimate in estimates if estimate]
    assert units == ["training seed", "training seed", "SAE"]
