"""The question `atomic?` where the answer is known: numbers by hand, and planted decoders."""

from __future__ import annotations

import os

import pytest
from atomic_worlds import NO, SIZES, WORLDS, judged
from stated_margins import STATED

from saebench_canon.plugin.table_line import Cell, Estimate, Line
from saebench_canon.questions.atomic import atomic

# ATOMIC_WORLDS=3 tries every world of d 64 and 128 with so many repetitions; else two, once.
REPEATS = int(os.environ.get("ATOMIC_WORLDS", "0"))
FEW = ("sums 50%, atoms not below, d 64", "clusters of 16 at 0.67, d 64")
LONG = [name for name in WORLDS if name.rpartition(", ")[2] in SIZES]
TRIED = [(n, s) for n in LONG for s in range(REPEATS)] if REPEATS else [(n, 0) for n in FEW]

BELOW = (  # worlds whose sums are of the smaller SAE's rows, and the share of sums in each
    ("sums 25%, d 64", 0.25), ("sums 50%, d 64", 0.5), ("sums 100%, d 64", 1.0),
    ("sums 100% of m/2 atoms, d 64", 1.0), ("grid of sums, d 64", 1.0),
)  # fmt: skip
APART = (
    "sums 0%, d 64", "split at 0.6, d 64", "split at 0.8, d 64", "clusters of 16 at 0.45, d 64",
    "clusters of 16 at 0.9, d 64", "clusters of 16 at 0.5, centres not below, d 64",
    "duplicates, d 64", "very anisotropic, d 64", "seeds that share nothing, anisotropic, d 64",
    "two seeds, sums 50%, d 64",
)  # fmt: skip
QUICK = {"composition": False, "steps": 2}  # the meta-SAE says nothing then


@pytest.mark.parametrize(("name", "seed"), TRIED)
def test_the_sentence_is_right_or_says_that_it_cannot_be_told(name: str, seed: int) -> None:
    answer, _ = judged(WORLDS[name].made(seed))
    assert answer.answer in WORLDS[name].right, answer.sentence


@pytest.mark.parametrize(("name", "share"), BELOW)
def test_sums_of_smaller_latents_are_called_so_with_their_share(name: str, share: float) -> None:
    answer, cells = judged(WORLDS[name].made(0), **QUICK)
    assert answer.answer == "no", answer.sentence
    excess = cells["composition.composed_excess"].estimate
    assert excess is not None
    # sums of 16 directions alone look like chance at d 64, and are not all told from it
    assert excess.value == pytest.approx(share, abs=0.15 if name == "sums 100%, d 64" else 0.05)


@pytest.mark.parametrize("name", APART)
def test_what_is_no_sum_of_smaller_latents_is_not_called_one(name: str) -> None:
    assert NO not in WORLDS[name].right
    answer, _ = judged(WORLDS[name].made(0), **QUICK)
    assert answer.answer in WORLDS[name].right, answer.sentence


def around(value: float, half_width: float | None = 0.01, seeds: int = 3) -> Estimate:
    """An estimate with Student's interval over its seeds."""
    stderr = None if half_width is None else half_width / 4.302653
    return Estimate(
        value, half_width, seeds, "training seed", "t", (value,) * seeds, stderr, seeds - 1
    )


def cell(
    value: float,
    half_width: float | None = 0.01,
    *,
    seeds: int = 3,
    floor: float | Estimate | None = None,
) -> Cell:
    floor_estimate = around(floor) if isinstance(floor, float) else floor
    return Cell(around(value, half_width, seeds), "measured", floor=floor_estimate)


def meta(
    excess: Cell | None = None, *, recall: Cell | None = None, purged: float | None = 0.1
) -> Line:
    """A line of meta_sae at which nothing is composed, but for what is given."""
    cells = {
        "composed_excess": excess or cell(0.01),
        "planted_recall": recall or cell(0.9),
        "purged_share": None if purged is None else cell(purged),
    }
    measured = {name: value for name, value in cells.items() if value is not None}
    return Line((256,), "256", measured, subjects=("b",), cases=("id",))


def pair(excess: Cell | None = None, *, recall: Cell | None = None, unfit: bool = False) -> Line:
    """A line of composition at which nothing is composed, but for what is given."""
    cells = {
        "composed_excess": excess or cell(0.02, floor=0.02),
        "planted_recall": recall or cell(0.99, 0.01),
    }
    return Line((128, 256), "128 → 256", cells, subjects=("a", "b"), cases=("id",), unfit=unfit)


def said(line: Line | None, other: Line | None, **margins: float) -> tuple[str, str]:
    return atomic(line, other, {**STATED["atomic?"], **margins})


def without(line: Line, name: str) -> Line:
    """The line less one of its cells."""
    cells = {key: value for key, value in line.cells.items() if key != name}
    return Line(line.key, line.title, cells, line.subjects, line.cases, line.unfit)


def undefined() -> Cell:
    return Cell(None, "undefined")


# --- no ---------------------------------------------------------------------------------------

SUMS_BELOW = cell(0.46, 0.03, floor=0.1)


def test_sums_of_smaller_latents_above_the_floor_are_composition() -> None:
    assert said(meta(), pair(SUMS_BELOW)) == (
        "no",
        "Not atomic: .46 [.43, .49] of the latents are sums of 128 smaller latents, beyond chance "
        "(floor between seeds .10, above it [.33, .39], limit .10).",
    )


def test_sums_of_meta_latents_are_composition() -> None:
    assert said(meta(cell(0.3, 0.05)), pair()) == (
        "no",
        "Not atomic: .30 [.25, .35] of the latents are sums of shared meta-latents, beyond chance "
        "(limit .10).",
    )


def test_both_are_told_where_both_find_it() -> None:
    answer, sentence = said(meta(cell(0.3, 0.05)), pair(SUMS_BELOW))
    assert answer == "no"
    assert sentence == (
        "Not atomic: .46 [.43, .49] of the latents are sums of 128 smaller latents, beyond chance "
        "(floor between seeds .10, above it [.33, .39], limit .10); .30 [.25, .35] of the latents "
        "are sums of shared meta-latents, beyond chance (limit .10)."
    )


@pytest.mark.parametrize(
    ("line", "other"),
    [
        (None, pair(SUMS_BELOW)),
        (meta(undefined()), pair(SUMS_BELOW)),
        (meta(purged=0.9), pair(SUMS_BELOW)),
        (meta(cell(0.3)), None),
        (meta(cell(0.3)), pair(unfit=True)),
        (meta(cell(0.3)), pair(undefined())),
        (meta(cell(0.3), recall=cell(0.0)), None),
    ],
)
def test_either_finds_composition_by_itself(line: Line | None, other: Line | None) -> None:
    answer, sentence = said(line, other)
    assert answer == "no"
    assert sentence.count("are sums of") == 1


def test_the_whole_interval_must_be_above_the_limit() -> None:
    assert said(meta(cell(0.15, 0.04)), pair())[0] == "no"
    assert said(meta(cell(0.15, 0.06)), pair())[0] == "undecided"
    assert said(meta(cell(0.15, 0.06)), pair(), composed=0.05)[0] == "no"
    assert said(meta(cell(0.1, 0.0)), pair())[0] == "undecided"


def test_what_other_seeds_have_too_is_no_composition() -> None:
    answer, sentence = said(meta(), pair(cell(0.46, 0.03, floor=0.4)))
    assert answer == "undecided"
    assert sentence == (
        "undecided: .46 [.43, .49] sums of 128 smaller latents (floor .40, above it [.03, .09]); "
        ".01 [.00, .02] sums of shared meta-latents (limits .05 and .10)."
    )
    assert said(meta(), pair(cell(0.46, 0.03, floor=around(0.3, 0.2))))[0] == "undecided"


def test_a_floor_below_chance_adds_nothing_to_what_stands_above_it() -> None:
    """Between seeds that share nothing the excess is −null/(1 − null), down to −.05."""
    answer, sentence = said(meta(), pair(cell(0.07, 0.005, floor=around(-0.05, 0.005))))
    assert answer == "undecided", sentence


def test_a_share_that_rounds_to_its_limit_is_printed_until_they_differ() -> None:
    answer, sentence = said(meta(cell(0.1021, 0.0)), pair())
    assert answer == "no"
    assert ".102 [.102, .102] of the latents" in sentence
    assert "(limit .100)" in sentence


# --- none found --------------------------------------------------------------------------------


def test_silence_of_two_tests_that_find_planted_sums_is_atomic() -> None:
    assert said(meta(), pair()) == (
        "none-found",
        "No composition found, in 128 smaller latents and shared meta-latents: .02 [.01, .03] and "
        ".01 [.00, .02] of the latents beyond chance; planted sums are found by .99 [.98, 1.00] "
        "and .90 [.89, .91] (limits .05 and .70). Sums of directions that few latents share "
        "would not be seen.",
    )


def test_it_takes_no_floor_to_find_nothing() -> None:
    assert said(meta(), pair(cell(0.02)))[0] == "none-found"


@pytest.mark.parametrize(
    ("line", "other", "because"),
    [
        (meta(cell(0.045)), pair(), ".04 [.03, .06] sums of shared meta-latents (limits .05 and"),
        (meta(), pair(cell(0.045, floor=0.04)), ".04 [.03, .06] sums of 128 smaller latents"),
        (
            meta(recall=cell(0.705)),
            pair(),
            "planted sums of shared meta-latents are found by .70 [.69, .71] (limit .70).",
        ),
        (
            meta(),
            pair(recall=cell(0.5)),
            "planted sums of 128 smaller latents are found by .50 [.49, .51] (limit .70).",
        ),
        (meta(), None, "; no smaller SAE was compared."),
        (None, pair(), "; no meta-SAE was trained."),
        (meta(), pair(unfit=True), "; the smaller SAE is not fit to be compared."),
        (meta(purged=0.6), pair(), "; .60 of the rows are near rows kept out (limit .50)."),
    ],
)
def test_it_takes_both_tests_and_both_recalls_to_find_nothing(
    line: Line | None, other: Line | None, because: str
) -> None:
    answer, sentence = said(line, other)
    assert answer == "undecided"
    assert because in sentence


def test_a_recall_at_its_limit_is_enough() -> None:
    assert said(meta(recall=cell(0.7, 0.0)), pair())[0] == "none-found"
    assert said(meta(recall=cell(0.6, 0.0)), pair(), recall=0.6)[0] == "none-found"


def test_a_share_at_its_limit_is_not_below_it() -> None:
    assert said(meta(cell(0.05, 0.0)), pair())[0] == "undecided"
    assert said(meta(cell(0.05, 0.0)), pair(), atomic=0.06)[0] == "none-found"


# --- what is missing --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "floor", [None, around(0.1, seeds=2), around(0.1, None)], ids=["none", "two seeds", "no ±"]
)
def test_without_a_floor_sums_of_smaller_latents_stay_open(floor: Estimate | None) -> None:
    answer, sentence = said(meta(), pair(cell(0.46, 0.03, floor=floor)))
    assert answer == "undecided"
    assert sentence == (
        "undecided: .46 [.43, .49] sums of 128 smaller latents; .01 [.00, .02] sums of shared "
        "meta-latents (limits .05 and .10); no floor for sums of 128 smaller latents."
    )


def test_a_floor_is_missed_only_where_it_would_matter() -> None:
    answer, sentence = said(meta(recall=cell(0.5)), pair(cell(0.02)))
    assert answer == "undecided"
    assert "floor" not in sentence


@pytest.mark.parametrize("lost", ["nobody looked", "undefined"])
def test_a_recall_that_nobody_measured_is_named(lost: str) -> None:
    line = meta(recall=undefined()) if lost == "undefined" else without(meta(), "planted_recall")
    answer, sentence = said(line, pair())
    assert answer == "undecided"
    why = "is undefined (see the notes)" if lost == "undefined" else "was not measured"
    assert sentence.endswith(f"; of sums of shared meta-latents, planted_recall {why}.")


def test_a_recall_without_an_interval_says_what_it_lacks() -> None:
    answer, sentence = said(meta(recall=cell(0.9, None, seeds=2)), pair())
    assert answer == "undecided"
    assert sentence.endswith(
        "planted sums of shared meta-latents are found by .90; 2 seeds (.90 and .90) of the 3 it "
        "takes."
    )


def test_two_seeds_get_numbers_and_what_is_missing() -> None:
    few = cell(0.46, None, seeds=2)
    assert said(meta(cell(0.2, None, seeds=2)), pair(few)) == (
        "not-judged",
        "not judged: .46 of the latents are sums of smaller ones, beyond chance; 2 seeds (.46 and "
        ".46) of the 3 it takes; .20 of the latents are sums of meta-latents, beyond chance; 2 "
        "seeds (.20 and .20) of the 3 it takes.",
    )
    assert said(meta(cell(0.2, 0.01, seeds=2)), pair(cell(0.46, 0.01, seeds=2)))[0] == "not-judged"
    assert said(meta(), pair(few))[0] == "undecided"
    assert said(meta(cell(0.2, None, seeds=2)), pair())[0] == "undecided"
    assert said(meta(cell(0.2, 0.01, seeds=2)), pair(), seeds=2)[0] == "no"


def test_three_seeds_without_an_error_are_no_interval() -> None:
    answer, sentence = said(None, pair(cell(0.46, None)))
    assert answer == "not-judged"
    assert ".46 of the latents are sums of smaller ones, beyond chance; no interval" in sentence


@pytest.mark.parametrize(
    ("line", "other", "sentence"),
    [
        (None, None, "not judged: no smaller SAE was compared; no meta-SAE was trained."),
        (
            meta(undefined()),
            pair(unfit=True),
            "not judged: the smaller SAE is not fit to be compared; of sums of meta-latents, "
            "composed_excess is undefined (see the notes).",
        ),
        (
            without(meta(), "composed_excess"),
            pair(undefined()),
            "not judged: of sums of smaller latents, composed_excess is undefined (see the notes); "
            "of sums of meta-latents, composed_excess was not measured.",
        ),
        (
            meta(Cell(None, "failed")),
            None,
            "not judged: no smaller SAE was compared; of sums of meta-latents, composed_excess "
            "failed (see the notes).",
        ),
    ],
)
def test_without_either_test_nothing_is_judged(
    line: Line | None, other: Line | None, sentence: str
) -> None:
    assert said(line, other) == ("not-judged", sentence)


@pytest.mark.parametrize(
    "other", [None, pair(unfit=True), pair(undefined())], ids=["no smaller", "unfit", "undefined"]
)
def test_rows_that_are_near_each_other_and_no_smaller_sae_cannot_be_told(
    other: Line | None,
) -> None:
    answer, sentence = said(meta(purged=0.6), other)
    assert answer == "not-measurable"
    assert ".60 of the rows are near rows kept out (limit .50)" in sentence


def test_rows_near_rows_kept_out_count_from_their_limit() -> None:
    assert said(meta(purged=0.5), pair())[0] == "none-found"
    assert said(meta(purged=0.5), pair(), purged=0.4)[0] == "undecided"
    assert said(meta(purged=None), pair())[0] == "none-found"
    few = cell(0.2, None, seeds=2)
    assert "near rows kept out" in said(meta(few, purged=0.6), pair())[1]
