"""The question `complete?` where the answer is known: planted worlds, measured as suites are."""

from __future__ import annotations

import os
import re

import pytest
from stated_margins import STATED
from worlds import TAUGHT, WORLDS, judged

from saebench_canon.plugin.table_line import Cell, Estimate, Line
from saebench_canon.questions.complete import complete

# WORLDS=3 tries every world with so many repetitions, and trained SAEs once; else these, once.
REPEATS = int(os.environ.get("WORLDS", "0"))
FEW = (
    "lacks 0%", "lacks 10%", "lacks 25%, Zipf", "lacks 25%, TopK", "lacks 25%, correlated",
    "lacks 0%, large codes a third", "lacks 10%, large codes a third", "enough: duplicates",
    "enough: random rows", "enough: sums of 3", "enough: sums of 6, small codes a half",
    "large random, pursuit", "large hardly trained", "small hardly trained",
    "large explains less, lacks 10%", "d 16, lacks 25%", "split at 0.9",
    "each large finds another quarter", "two seeds, lacks 25%", "one seed, lacks 25%",
    "unfit, lacks 50%",
)  # fmt: skip
LONG = [*((name, seed) for name in WORLDS for seed in range(REPEATS)), *((n, 0) for n in TAUGHT)]
TRIED = LONG if REPEATS else [(name, 3) for name in FEW]


@pytest.mark.parametrize(("name", "seed"), TRIED)
def test_the_sentence_is_right_or_says_that_it_cannot_be_told(name: str, seed: int) -> None:
    world = {**WORLDS, **TAUGHT}[name]
    _, answer = judged(*world.made(seed))
    assert answer.answer in world.right, answer.sentence
    if answer.answer == "no" and world.missing is not None and "cosine" not in name:
        numbers = re.match(r"Not complete: (\S+) ", answer.sentence)
        assert numbers is not None
        assert float(numbers[1]) == pytest.approx(world.missing, abs=0.08)


def around(value: float, half_width: float | None = 0.01, seeds: int = 3) -> Estimate:
    stderr = None if half_width is None else half_width / 4.3
    return Estimate(
        value, half_width, seeds, "training seed", "t", (value,) * seeds, stderr, seeds - 1
    )


def step(**cells: Cell | None) -> Line:
    """A step at which a quarter is missing, but for the cells given; None leaves one out."""
    all_cells: dict[str, Cell | None] = {
        "reproducible_share": cell(0.9, floor=0.9, floor_small=0.9),
        "stable_novel_share": cell(0.25, floor=0.01),
        "stable_gain": cell(0.2, floor=0.01),
        "small_mse_rescaled": cell(1.0),
        "large_mse_rescaled": cell(0.7),
        "span_residual_null_low": cell(0.6),
        **cells,
    }
    measured = {name: value for name, value in all_cells.items() if value is not None}
    return Line((128, 256), "128 → 256", measured, subjects=("a", "b"), cases=("id",))


def cell(
    value: float,
    half_width: float | None = 0.01,
    *,
    floor: float | None = None,
    floor_small: float | None = None,
    seeds: int = 3,
) -> Cell:
    return Cell(
        around(value, half_width, seeds),
        "measured",
        floor=None if floor is None else around(floor),
        floor_small=None if floor_small is None else around(floor_small),
    )


def asked(**cells: Cell | None) -> tuple[str, str]:
    answer = complete(step(**cells), STATED["complete?"])
    return answer.answer, answer.sentence


NOTHING = {
    "stable_novel_share": cell(0.01, floor=0.01),
    "stable_gain": cell(0.005, floor=0.004),
    "large_mse_rescaled": cell(0.98),
}


def test_what_comes_back_with_every_seed_and_is_missing_makes_it_incomplete() -> None:
    assert asked() == (
        "no",
        "Not complete: .25 [.24, .26] of what the larger finds again and again is missing "
        "(floor .01); adding it removes .20 [.19, .21] of the error (floor .01) "
        "(above the floor [.23, .25] and [.18, .20], limits .05 and .01).",
    )


def test_nothing_missing_and_nothing_explained_beside_is_no_incompleteness() -> None:
    assert asked(**NOTHING) == (
        "none-found",
        "No incompleteness found up to width 256: .01 [.00, .02] of what the larger finds again "
        "and again is missing (floor .01); adding it removes .01 [-.01, .01] of the error "
        "(floor .00) (limits .05 and .02; the larger leaves .02 [.01, .03] less error, limit .05).",
    )


def test_a_larger_sae_that_explains_more_by_other_means_leaves_it_open() -> None:
    answer, sentence = asked(**{**NOTHING, "large_mse_rescaled": cell(0.8)})
    assert answer == "undecided"
    assert "yet the larger leaves .20 [.19, .21] less error (limit .05)" in sentence
    assert asked(**{**NOTHING, "large_mse_rescaled": None})[0] == "undecided"


def test_errors_within_the_limit_of_each_other_are_alike() -> None:
    assert asked(**{**NOTHING, "large_mse_rescaled": cell(1.04)})[0] == "none-found"
    answer, sentence = asked(large_mse_rescaled=cell(1.2))
    assert answer == "not-measurable"
    assert "leaves .20 [.19, .21] more error than the smaller (limit .05)" in sentence


def test_records_without_errors_at_their_best_scale_are_judged_by_those_as_they_stand() -> None:
    plain = {"small_mse": cell(1.0), "large_mse": cell(1.2)}
    without = {"small_mse_rescaled": None, "large_mse_rescaled": None}
    assert asked(**plain, **without)[0] == "not-measurable"


@pytest.mark.parametrize(
    ("cells", "because"),
    [
        ({"reproducible_share": cell(0.505, 0.01)}, "of the larger's latents come back"),
        ({"span_residual_null_low": cell(0.2)}, "d is too small"),
    ],
)
def test_what_cannot_be_told_is_said_before_anything_else(
    cells: dict[str, Cell | None], because: str
) -> None:
    answer, sentence = asked(**cells)
    assert answer == "not-measurable"
    assert because in sentence


def test_a_small_sae_whose_seeds_disagree_may_lack_it_for_want_of_training() -> None:
    answer, sentence = asked(reproducible_share=cell(0.9, floor=0.9, floor_small=0.4))
    assert answer == "no"
    assert sentence.endswith(
        "; only .40 [.39, .41] of the smaller's own latents come back with another seed "
        "(limit .50), so that may be its training more than its width."
    )


@pytest.mark.parametrize(
    "cells",
    [
        {"stable_novel_share": cell(0.25, floor=0.22)},
        {"stable_gain": cell(0.2, floor=0.195)},
        {"stable_novel_share": cell(0.06, 0.02, floor=0.0)},
        {"stable_gain": cell(0.012, floor=0.0)},
    ],
)
def test_both_must_stand_clearly_above_their_floors(cells: dict[str, Cell | None]) -> None:
    assert asked(**cells)[0] == "undecided"


def test_without_a_floor_nothing_is_called_incomplete() -> None:
    answer, sentence = asked(stable_gain=cell(0.2))
    assert answer == "undecided"
    assert "for want of a floor" in sentence


def test_a_share_that_rounds_to_its_limit_is_printed_until_they_differ() -> None:
    near = Cell(around(0.0521, 0.0), "measured", floor=around(0.0, 0.0))
    answer, sentence = asked(stable_novel_share=near)
    assert answer == "no"
    assert sentence.startswith("Not complete: .052 [.052, .052] of what")
    assert "limits .050 and" in sentence


def test_two_seeds_get_numbers_and_what_is_missing() -> None:
    scores = {"novel_share": cell(0.3, None, seeds=2), "novel_gain": cell(0.1, None, seeds=2)}
    answer, sentence = asked(reproducible_share=cell(0.9, None, seeds=2), **scores)
    assert answer == "not-judged"
    assert sentence.endswith("2 seeds (.30 and .30) of the 3 it takes.")


def test_every_deciding_score_needs_three_seeds_and_so_does_its_floor() -> None:
    answer, sentence = asked(stable_gain=cell(0.2, floor=0.01, seeds=1))
    assert answer == "not-judged"
    assert sentence == "not judged: stable_gain: one seed of the 3 it takes."
    few = cell(0.2, floor=0.01)
    answer, _ = asked(stable_gain=Cell(few.estimate, "measured", floor=around(0.01, seeds=1)))
    assert answer == "undecided"
