"""The question `atomic?` where the answer is known: numbers by hand, and planted decoders."""

from __future__ import annotations

import math
import os

import pytest
from atomic_worlds import NO, SIZES, WORLDS, judged

from saebench_canon.plugin.table_line import Cell, Estimate, Line
from saebench_canon.questions.atomic import _decided
from saebench_canon.questions.atomic_sentences import Merged, Meta, Smaller, sentence
from saebench_canon.questions.atomicity import AtomicLimits
from saebench_canon.questions.intervals import Component, Interval, student
from saebench_canon.questions.merging import Hub
from saebench_canon.questions.weighted import Weighted

# ATOMIC_WORLDS=3 tries every world of d 64 and 128 with so many repetitions; else two, once.
REPEATS = int(os.environ.get("ATOMIC_WORLDS", "0"))
FEW = ("sums 50%, atoms not below, d 64", "clusters of 16 at 0.67, d 64")
LONG = [name for name in WORLDS if name.rpartition(", ")[2] in SIZES]
TRIED = [(n, s) for n in LONG for s in range(REPEATS)] if REPEATS else [(n, 0) for n in FEW]

BELOW = (  # worlds whose sums are of the smaller SAE's rows, and the share of sums in each
    ("sums 25%, d 64", 0.25), ("sums 50%, d 64", 0.5),
    ("sums 100% of m/2 atoms, d 64", 1.0), ("grid of sums, d 64", 1.0),
)  # fmt: skip
APART = (
    "sums 0%, d 64", "split at 0.6, d 64", "split at 0.8, d 64", "clusters of 16 at 0.45, d 64",
    "clusters of 16 at 0.9, d 64", "clusters of 16 at 0.5, centres not below, d 64",
    "duplicates, d 64", "very anisotropic, d 64", "seeds that share nothing, anisotropic, d 64",
    "two seeds, sums 50%, d 64",
)  # fmt: skip
QUICK = {"composition": False, "steps": 2}  # the meta-SAE says nothing then
LIMITS = AtomicLimits()


@pytest.mark.parametrize(("name", "seed"), TRIED)
def test_the_answer_is_right_or_says_that_it_cannot_be_told(name: str, seed: int) -> None:
    answer = judged(WORLDS[name].made(seed))
    assert answer.answer in WORLDS[name].right, answer.sentence


@pytest.mark.parametrize(("name", "share"), BELOW)
def test_sums_of_smaller_latents_are_called_so_with_their_share(name: str, share: float) -> None:
    answer = judged(WORLDS[name].made(0), **QUICK)
    assert answer.answer == "no", answer.sentence
    found = answer.numbers["composed_share"].estimate
    assert found is not None
    assert found.value == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("name", APART)
def test_what_is_no_sum_of_smaller_latents_is_not_called_one(name: str) -> None:
    answer = judged(WORLDS[name].made(0), **QUICK)
    assert answer.answer != NO, answer.sentence
    assert answer.answer in WORLDS[name].right, answer.sentence


def smaller(
    share: float, floor: float | None, *, spread: float = 0.01, recall: float = 0.9
) -> Smaller:
    parts = [Component((spread / 10) ** 2, 200, seeds=False), Component(spread**2, 3)]
    if floor is None:
        return Smaller(128, (), recall, Interval(share, share - 0.05, share + 0.05), None, None)
    above = student(share - floor, parts)
    found = Weighted(student(share, parts), floor, above, {"a": share}, 0.9, 0.9)
    return Smaller(128, ((found, recall),), recall, found.share, floor, above)


def estimate(value: float, half_width: float = 0.01) -> Estimate:
    return Estimate(value, half_width, 3, "training seed", "t", (value,) * 3, half_width / 4.3, 2)


def meta(excess: float, *, half_width: float = 0.01, purged: float = 0.1) -> Meta:
    cells = {
        "composed_excess": Cell(estimate(excess, half_width), "measured"),
        "planted_recall": Cell(estimate(0.6), "measured"),
        "purged_share": Cell(estimate(purged), "measured"),
    }
    found = Meta.of(Line((256,), "256", cells, ("b",), ("id",)), 0.5)
    assert found is not None
    return found


def said(
    below: Smaller | None, of_meta: Meta | None = None, above: Merged | None = None
) -> tuple[str, str]:
    decision = _decided(below, of_meta, LIMITS)
    return decision.word, sentence(decision, below, above, of_meta, LIMITS)


def test_sums_of_smaller_latents_above_the_floor_are_composition() -> None:
    assert said(smaller(0.46, 0.1)) == (
        "no",
        "Not atomic: .46 [.42, .50] of the latents are sums of 128 smaller ones, and .10 of "
        "another seed's, above it [.32, .40] (limit .10).",
    )


def test_what_other_seeds_hold_too_is_not_told_from_a_change_of_basis() -> None:
    word, text = said(smaller(0.46, 0.4))
    assert word == "undecided"
    assert "decomposition and change of basis are not told apart" in text


def test_no_sums_are_found_where_planted_ones_would_be() -> None:
    assert said(smaller(0.01, 0.02)) == (
        "none-found",
        "No sums of the 128 smaller latents found: .01 [.00, .05] (.02 of another seed's) (limit "
        ".10); sums of directions that the smaller lacks, or that are never seen apart, are not "
        "tested.",
    )
    word, text = said(smaller(0.01, 0.02, recall=0.5))
    assert word == "undecided"
    assert "only .50 of planted sums are found (limit .70)" in text


def test_a_share_near_the_limit_says_how_many_seeds_would_decide() -> None:
    word, text = said(smaller(0.06, 0.02, spread=0.03))
    assert word == "undecided"
    assert "not told from .10: about " in text


def test_a_meta_sae_can_say_no_and_its_power_is_told() -> None:
    word, text = said(smaller(0.01, 0.02), meta(0.3))
    assert word == "no"
    assert ".30 [.29, .31] are sums of a meta-SAE's latents beyond chance" in text
    assert "(it finds .60 [.59, .61] of planted sums)" in text
    word, text = said(smaller(0.01, 0.02), meta(0.11, half_width=0.05))
    assert word == "undecided"
    assert "what the meta-SAE finds is not told from the limit" in text
    assert said(smaller(0.01, 0.02), meta(0.09, half_width=0.05))[0] == "none-found"
    assert said(None, meta(0.3))[0] == "no"


def test_a_meta_sae_alone_never_says_that_there_are_none() -> None:
    word, text = said(None, meta(0.01))
    assert word == "undecided"
    assert text.endswith("no smaller SAE was compared (limit .10).")


def test_rows_near_rows_kept_out_silence_a_meta_sae() -> None:
    word, text = said(smaller(0.01, 0.02), meta(0.3, purged=0.6))
    assert word == "none-found"
    assert "no meta-SAE tells: .60 of the rows are near rows kept out" in text


def test_one_seed_has_no_floor() -> None:
    word, text = said(smaller(0.46, None))
    assert word == "undecided"
    assert "(no floor: it takes three seeds)" in text


def test_without_anything_nothing_is_judged() -> None:
    assert said(None) == ("not-judged", "not judged: no smaller SAE was compared.")
    unknown = Smaller(128, (), 0.9, Interval(math.nan, math.nan, math.nan), None, None)
    word, text = said(unknown)
    assert word == "not-judged"
    assert text.endswith("another seed or a wider SAE would tell.")


def test_merging_is_the_other_direction() -> None:
    merged = Merged(256, Interval(0.33, 0.28, 0.39), 0.02, ())
    _, text = said(smaller(0.01, 0.02), None, merged)
    assert text.endswith(
        "; .33 [.28, .39] of its own latents are sums of 256 larger ones (chance .02)."
    )
    hub = Merged(256, Interval(0.33, 0.28, 0.39), 0.02, ((("a", "b"), Hub(7, 0.9, 40)),))
    assert said(None, None, hub)[1].endswith(", most of them with latent 7 of b.")
