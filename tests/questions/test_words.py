"""Which word the numbers give: each condition of METRICS.md at its limit and next to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saebench_canon.questions.atomicity import AtomicLimits, atomicity, is_hub
from saebench_canon.questions.completeness import (
    CompleteLimits,
    completeness,
    completeness_alone,
)
from saebench_canon.questions.gains import Gain
from saebench_canon.questions.intervals import Interval
from saebench_canon.questions.merging import Hub
from saebench_canon.questions.weighted import Weighted
from saebench_canon.questions.witnessed import Witnessed
from saebench_canon.questions.words import (
    Decision,
    is_near,
    with_nearness,
    without_common_direction,
)


def about(lo: float, hi: float) -> Interval:
    return Interval((lo + hi) / 2, lo, hi)


def weighted(
    above_lo: float, *, lo: float = 0.0, hi: float = 0.3, found_again: float = 0.8
) -> Weighted:
    return Weighted(about(lo, hi), 0.05, about(above_lo, 0.9), {}, 0.9, found_again)


def gain(lo: float, hi: float) -> Gain:
    return Gain((lo + hi) / 2, 0.0, about(lo, hi))


def complete(
    above_lo: float = 0.06,
    gained: tuple[float, float] = (0.02, 0.04),
    *,
    hi: float = 0.3,
    found_again: float = 0.8,
    better: float = 0.1,
    span_low: float = 0.5,
    limits: CompleteLimits | None = None,
) -> Decision:
    missing = weighted(above_lo, hi=hi, found_again=found_again)
    limits = limits or CompleteLimits()
    return completeness(missing, gain(*gained), better=better, span_low=span_low, limits=limits)


def test_not_complete_takes_more_missing_and_more_gain_than_the_floor() -> None:
    assert complete() == Decision("no")
    assert complete(0.05).word == "undecided"
    assert complete(0.05).reasons[0] == "missing not above floor"
    assert complete(gained=(0.01, 0.04)).word == "undecided"
    assert complete(gained=(0.01, 0.04)).reasons[0] == "gain not above floor"


def nothing_missing(**changes: float) -> Decision:
    numbers = {"hi": 0.049, "found_again": 0.5, "better": 0.049, **changes}
    high = numbers.pop("gained_hi", 0.019)
    return complete(0.0, (0.0, high), **numbers)  # type: ignore[arg-type]


def test_none_is_found_where_all_four_limits_hold() -> None:
    assert nothing_missing() == Decision("none-found")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hi": 0.05}, "may be missing"),
        ({"found_again": 0.499}, "seldom found again"),
        ({"better": 0.05}, "larger is better"),
        ({"gained_hi": 0.02}, "may gain"),
    ],
)
def test_one_limit_that_does_not_hold_keeps_it_open(change: dict[str, float], reason: str) -> None:
    answer = nothing_missing(**change)
    assert answer.word == "undecided"
    assert answer.reasons == ("missing not above floor", "gain not above floor", reason)


def test_what_cannot_be_measured_comes_first() -> None:
    assert complete(better=-0.051) == Decision("not-measurable", ("larger is worse",))
    assert complete(better=-0.05).word == "no"
    assert complete(span_low=0.25) == Decision("not-measurable", ("few dimensions",))
    assert complete(span_low=0.26).word == "no"
    nothing = completeness(None, gain(0.1, 0.2), better=0.1, span_low=0.5)
    assert nothing == Decision("not-measurable", ("nothing is found again",))


def test_limits_can_be_moved() -> None:
    assert complete(0.09, limits=CompleteLimits(missing=0.1)).word == "undecided"


def seen(lo: float = 0.06, latents: int = 20, latents_back: int = 20) -> Witnessed:
    return Witnessed(0.3, 0.1, latents, latents_back, about(lo, 0.5), 0.4)


HIGH, LOW = about(0.031, 0.1), about(0.03, 0.1)


def test_one_seed_a_width_is_judged_by_a_witness() -> None:
    assert completeness_alone([(seen(), HIGH)]) == Decision("no")
    low = completeness_alone([(seen(), LOW)])
    assert low == Decision("undecided", ("gain not above floor",))
    little = completeness_alone([(seen(0.05), HIGH)])
    assert little == Decision("undecided", ("missing not above floor",))


@pytest.mark.parametrize("few", [seen(latents=19), seen(latents_back=19)])
def test_a_witness_that_finds_few_latents_judges_nothing(few: Witnessed) -> None:
    assert completeness_alone([(few, HIGH)]) == Decision("not-judged", ("few latents",))
    assert completeness_alone([(few, LOW), (seen(), HIGH)]).word == "no"


def test_all_witnesses_must_agree() -> None:
    assert completeness_alone([(seen(), HIGH), (seen(), HIGH)]).word == "no"
    assert completeness_alone([(seen(), HIGH), (seen(), LOW)]).word == "undecided"
    assert completeness_alone([]) == Decision("not-judged", ("no witness",))


def test_not_atomic_takes_more_sums_than_the_floor() -> None:
    assert atomicity(weighted(0.101), recall=0.1) == Decision("no", ("sums of the other",))
    assert atomicity(weighted(0.1), recall=0.9) == Decision("undecided", ("may be sums",))


def test_no_sums_are_found_where_planted_ones_would_be() -> None:
    few = weighted(0.0, hi=0.099)
    assert atomicity(few, recall=0.7) == Decision("none-found")
    assert atomicity(few, recall=0.69) == Decision("undecided", ("planted sums unseen",))
    both = atomicity(weighted(0.0, hi=0.1), recall=0.69)
    assert both == Decision("undecided", ("may be sums", "planted sums unseen"))


def test_sums_that_another_seed_has_too_are_not_told_apart() -> None:
    answer = atomicity(weighted(0.0, lo=0.11), recall=0.9)
    assert answer == Decision("undecided", ("as in another seed",))
    assert atomicity(weighted(0.0, lo=0.1), recall=0.9).reasons == ("may be sums",)


def test_a_meta_sae_alone_can_say_no() -> None:
    shared = "sums of shared directions"
    none = weighted(0.0, hi=0.05)
    assert atomicity(none, recall=0.9, meta_lo=0.11) == Decision("no", (shared,))
    assert atomicity(None, recall=0.9, meta_lo=0.11) == Decision("no", (shared,))
    both = atomicity(weighted(0.2), recall=0.9, meta_lo=0.11)
    assert both == Decision("no", ("sums of the other", shared))
    assert atomicity(none, recall=0.9, meta_lo=0.1).word == "none-found"
    unseen = atomicity(None, recall=0.9)
    assert unseen == Decision("not-measurable", ("nothing is found again",))


def test_atomic_limits_can_be_moved() -> None:
    strict = replace(AtomicLimits(), sums=0.3)
    assert atomicity(weighted(0.2), recall=0.9).word == "no"
    assert atomicity(weighted(0.2), recall=0.9, limits=strict).word != "no"


def test_a_part_of_more_than_half_of_the_sums_is_named() -> None:
    assert is_hub(Hub(3, 0.51, 100))
    assert not is_hub(Hub(3, 0.5, 100))
    assert not is_hub(Hub(3, 0.9, 7))  # of so few sums a part in common says nothing


def test_the_common_direction_only_undoes_what_raw_rows_contradict() -> None:
    no, none, still = Decision("no"), Decision("none-found"), Decision("undecided")
    turned = Decision("undecided", ("common direction",))
    assert without_common_direction(no, none) == turned
    assert without_common_direction(none, no) == turned
    assert without_common_direction(still, no) == no
    assert without_common_direction(no, still) == still
    assert without_common_direction(no, no) == no


@pytest.mark.parametrize(
    ("word", "no", "none_found", "near"),
    [
        ("no", 0.5, -9, True),
        ("no", 1.5, -9, False),
        ("none-found", -9, 0.5, True),
        ("none-found", 0.5, 1.5, False),
        ("undecided", -0.5, -9, True),
        ("undecided", -9, -0.5, True),
        ("undecided", -1.5, -1.5, False),
        ("not-judged", 0.0, 0.0, False),
    ],
)
def test_an_answer_is_near_another_within_a_standard_error(
    word: str, no: float, none_found: float, near: bool
) -> None:
    assert is_near(word, no, none_found) is near  # type: ignore[arg-type]


def test_a_share_just_above_its_margin_is_near_and_far_above_it_is_not() -> None:
    gain = Gain(0.2, 0.0, about(0.1, 0.3))
    for above, near in ((0.051, True), (0.4, False)):
        decision = completeness(weighted(above, hi=0.9), gain, better=0.3, span_low=0.5)
        assert (decision.word, decision.near) == ("no", near)
    small = Gain(0.2, 0.0, about(0.011, 0.3))
    assert completeness(weighted(0.4, hi=0.9), small, better=0.3, span_low=0.5).near
    below = completeness(weighted(0.049, hi=0.9), gain, better=0.3, span_low=0.5)
    assert (below.word, below.near) == ("undecided", True)


def test_sums_just_below_the_limit_are_near_it() -> None:
    for hi, near in ((0.099, True), (0.03, False)):
        decision = atomicity(weighted(-0.5, lo=0.0, hi=hi), recall=0.9)
        assert (decision.word, decision.near) == ("none-found", near)
    assert not atomicity(weighted(-0.5, hi=0.099), recall=0.1).near


def test_a_sentence_says_that_it_is_near() -> None:
    assert with_nearness("Not complete: much (limit .05).", True) == (
        "Not complete: much (limit .05); near its margin."
    )
    assert with_nearness("Not complete.", False) == "Not complete."
