"""The question `complete?` where the answer is known: planted worlds, measured as suites are."""

from __future__ import annotations

import math
import os

import pytest
from worlds import BEYOND, TAUGHT, WORLDS, judged

from saebench_canon.questions.complete_sentences import Pair, Seeds, by_seeds, by_witness
from saebench_canon.questions.completeness import CompleteLimits, completeness, completeness_alone
from saebench_canon.questions.gains import Gain
from saebench_canon.questions.intervals import Component, Interval, student
from saebench_canon.questions.weighted import Weighted
from saebench_canon.questions.witnessed import Witnessed

# WORLDS=3 tries every world with so many repetitions, and trained SAEs once; else these, once.
REPEATS = int(os.environ.get("WORLDS", "0"))
FEW = (
    "lacks 0%", "lacks 10%", "lacks 25%, Zipf", "lacks 25%, TopK",
    "lacks 10%, large codes a third", "enough: duplicates", "enough: random rows",
    "enough: sums of 6, small codes a half", "large hardly trained", "small hardly trained",
    "large explains less, lacks 10%", "split at 0.9", "each large finds another quarter",
    "two seeds, lacks 25%", "one seed, lacks 25%", "unfit, lacks 50%",
)  # fmt: skip
LONG = [*((name, seed) for name in WORLDS for seed in range(REPEATS)), *((n, 0) for n in TAUGHT)]
TRIED = LONG if REPEATS else [(name, 3) for name in FEW]
LIMITS = CompleteLimits()


@pytest.mark.parametrize(("name", "seed"), TRIED)
def test_the_answer_is_right_or_says_that_it_cannot_be_told(name: str, seed: int) -> None:
    world = {**WORLDS, **TAUGHT}[name]
    answer = judged(*world.made(seed))
    assert answer.answer in world.right, answer.sentence
    share = answer.numbers.get("missing_stable_share")
    if share is not None and world.missing is not None and "cosine" not in name:
        assert share.estimate is not None
        if answer.answer == "no":
            assert share.estimate.value == pytest.approx(world.missing, abs=0.08)


def test_what_no_score_sees_through_is_known() -> None:
    """Seeds of one start whose latents were shuffled look like seeds that agree."""
    (world,) = BEYOND.values()
    assert judged(*world.made(0)).answer == "no"
    assert "no" not in world.right


def weighted(share: float, floor: float, *, spread: float = 0.001, found: float = 0.9) -> Weighted:
    parts = [Component((spread / 10) ** 2, 200, seeds=False), Component(spread**2, 3)]
    both = [*parts, Component(spread**2, 3)]
    return Weighted(
        student(share, parts), floor, student(share - floor, both), {"a": share}, found, found
    )


def seeds(
    share: float = 0.25,
    floor: float = 0.01,
    gain: float = 0.2,
    *,
    better: float = 0.3,
    low: float = 0.6,
    spread: float = 0.001,
    found: float = 0.9,
) -> Seeds:
    above = student(gain - 0.01, [Component(1e-8, 3), Component(1e-8, 3)])
    return Seeds(
        weighted(share, floor, spread=spread, found=found), weighted(share + 0.05, floor),
        Gain(gain, 0.01, above), better, low,
    )  # fmt: skip


def asked(found: Seeds, smaller: int = 3) -> tuple[str, str]:
    decision = completeness(
        found.missing, found.gain, better=found.better, span_low=found.low, limits=LIMITS
    )
    return decision.word, by_seeds(decision, found, 256, smaller, LIMITS)


def test_what_seeds_find_and_the_smaller_lacks_makes_it_incomplete() -> None:
    assert asked(seeds()) == (
        "no",
        "Not complete: of what other seeds of the larger find, .25 [.25, .25] is missing in the "
        "smaller (.30 not found), .01 in another seed of its own size (above it [.24, .24]); "
        "adding it removes .20 of the error (.01 between seeds, above it [.19, .19]) (limits .05 "
        "and .01).",
    )


def test_one_smaller_sae_is_spoken_of_as_one() -> None:
    assert "is missing in this smaller SAE" in asked(seeds(), smaller=1)[1]


def test_where_nothing_is_missing_none_is_found() -> None:
    word, sentence = asked(seeds(0.01, 0.01, 0.012, better=0.02))
    assert word == "none-found"
    assert sentence.startswith("No incompleteness found up to width 256: of what other seeds")
    assert sentence.endswith("; the larger leaves .02 less error (limit .05).")


def test_a_larger_sae_that_explains_more_by_other_means_leaves_it_open() -> None:
    word, sentence = asked(seeds(0.01, 0.01, 0.012, better=0.2))
    assert word == "undecided"
    assert "yet the larger leaves .20 less error (limit .05)" in sentence


def test_what_keeps_it_open_says_what_would_be_seen_and_how_many_seeds_would_decide() -> None:
    word, sentence = asked(seeds(0.09, 0.01, spread=0.02))
    assert word == "undecided"
    assert "not told from .05 (at these seeds" in sentence
    assert "above the floor would be seen; about " in sentence
    assert " seeds would decide)" in sentence


@pytest.mark.parametrize(
    ("found", "because"),
    [
        (seeds(better=-0.2), "the larger SAE leaves .20 more error than the smaller (limit .05)"),
        (seeds(low=0.2), "d is too small"),
        (Seeds(None, None, Gain(0, 0, Interval(0, 0, 0)), 0.1, 0.6), "found by another seed"),
    ],
)
def test_what_cannot_be_told_is_said_before_anything_else(found: Seeds, because: str) -> None:
    word, sentence = asked(found)
    assert word == "not-measurable"
    assert sentence.startswith("not measurable here: ")
    assert because in sentence


def test_a_harmful_insertion_adds_to_the_error() -> None:
    word, sentence = asked(seeds(gain=-0.1))
    assert word == "undecided"
    assert "adding it adds .10 of the error" in sentence
    assert "the gain is not told from its floor" in sentence


def pair(x: float = 0.4, y: float = 0.02, gain: float = 0.2, latents: int = 80) -> Pair:
    above = Interval(x - y, x - y - 0.05, x - y + 0.05)
    seen = Witnessed(x, y, latents, latents, above, x + 0.05)
    return Pair("w64", "w128", [("w256", seen, Interval(gain, gain - 0.02, gain + 0.02))])


def alone(*pairs: Pair) -> tuple[str, str]:
    judged_pairs = [
        (completeness_alone([(seen, gain) for _, seen, gain in one.heard], limits=LIMITS), one)
        for one in pairs
    ]
    words = {decision.word for decision, _ in judged_pairs}
    word = words.pop() if len(words) == 1 else "undecided"
    return word, by_witness(word, judged_pairs, LIMITS)


def test_one_seed_of_each_size_is_judged_by_a_witness() -> None:
    assert alone(pair()) == (
        "no",
        "Not complete, of these SAEs: of 80 latents of w128 that w256 finds too, .40 are missing "
        "in w64 (.45 not found), the other way round .02 (difference [.33, .43]); adding them "
        "removes .20 more of the error [.18, .22] (limits .05 and .03).",
    )


def test_without_a_witness_it_says_what_would_tell() -> None:
    word, sentence = alone(Pair("w64", "w128", []))
    assert word == "not-judged"
    assert sentence.endswith("another seed of the larger or a wider SAE would tell.")


def test_a_witness_that_finds_hardly_anything_says_nothing() -> None:
    word, sentence = alone(pair(latents=12))
    assert word == "not-judged"
    assert sentence == "not judged: w256 finds fewer than 20 latents of w128 or w64."


def test_two_seeds_that_disagree_are_both_told() -> None:
    word, sentence = alone(pair(), pair(x=0.05))
    assert word == "undecided"
    assert sentence.count("that w256 finds too") == 2


def test_without_activations_the_worth_is_not_known() -> None:
    found = pair()
    heard = [(name, seen, Interval(math.nan, -math.inf, math.inf)) for name, seen, _ in found.heard]
    word, sentence = alone(Pair("w64", "w128", heard))
    assert word == "undecided"
    assert "what adding them is worth was not measured" in sentence
