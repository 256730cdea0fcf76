"""Intervals with published or hand-made answers, and how many seeds narrow them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saebench_canon.questions.intervals import (
    Component,
    Interval,
    jackknife,
    mde,
    newcombe,
    satterthwaite,
    seeds_to_decide,
    seeds_to_see,
    student,
    wilson,
)

shares = st.floats(0, 1)
counts = st.integers(1, 2000)


def test_wilson_has_its_published_ends() -> None:
    interval = wilson(81 / 263, 263)  # Newcombe 1998, table I
    assert (round(interval.lo, 4), round(interval.hi, 4)) == (0.2553, 0.3662)
    assert (round(wilson(0, 20).lo, 4), round(wilson(0, 20).hi, 4)) == (0.0, 0.1611)


def test_of_no_latents_a_share_can_be_anything() -> None:
    assert (wilson(math.nan, 0).lo, wilson(math.nan, 0).hi) == (0, 1)


def test_newcombe_has_its_published_ends() -> None:
    interval = newcombe(wilson(56 / 70, 70), wilson(48 / 80, 80))  # Newcombe 1998, table II
    assert (round(interval.lo, 4), round(interval.hi, 4)) == (0.0524, 0.3339)


@given(shares, counts)
def test_wilson_is_symmetric_and_holds_its_share(share: float, count: int) -> None:
    interval, other = wilson(share, count), wilson(1 - share, count)
    assert interval.lo <= share + 1e-12
    assert interval.hi >= share - 1e-12
    assert interval.lo == pytest.approx(1 - other.hi, abs=1e-9)


def test_one_component_is_students_t() -> None:
    interval = student(0.4, [Component(0.01, 5)])
    assert interval.df == pytest.approx(4)
    assert interval.hi == pytest.approx(0.4 + stats.t.ppf(0.975, 4) * 0.1)


def test_two_equal_components_are_welchs() -> None:
    stderr, df = satterthwaite([Component(0.02, 4), Component(0.02, 4)])
    assert stderr == pytest.approx(0.2)
    assert df == pytest.approx(6)


def test_without_variance_the_degrees_of_freedom_are_infinite() -> None:
    assert satterthwaite([Component(0.0, 3)]) == (0.0, math.inf)
    assert student(0.2, []).lo == student(0.2, []).hi == 0.2


def test_the_jackknife_is_by_hand_on_the_logit() -> None:
    left_out = [0.2, 0.3, 0.4]
    logits = [math.log(share / (1 - share)) for share in left_out]
    middle = sum(logits) / 3
    stderr = math.sqrt(2 / 3 * sum((logit - middle) ** 2 for logit in logits))
    ends = [math.log(0.3 / 0.7) + side * stats.t.ppf(0.975, 2) * stderr for side in (-1, 1)]
    interval = jackknife(0.3, left_out, 100)
    expected = [1 / (1 + math.exp(-end)) for end in ends]
    assert [interval.lo, interval.hi] == pytest.approx(expected)


def test_equal_seeds_get_wilsons_interval() -> None:
    assert jackknife(0.1, [0.1, 0.1 + 1e-16, 0.1], 80) == wilson(0.1, 80)
    assert jackknife(0.0, [0.0, 0.0, 0.0], 80) == wilson(0.0, 80)


@given(st.lists(shares, min_size=3, max_size=6), counts)
def test_the_jackknife_stays_between_0_and_1(values: list[float], count: int) -> None:
    share = sum(values) / len(values)
    left_out = [
        sum(values[:seed] + values[seed + 1 :]) / (len(values) - 1) for seed in range(len(values))
    ]
    interval = jackknife(share, left_out, count)
    assert 0 <= interval.lo <= interval.hi <= 1


def test_half_a_latent_stands_for_none() -> None:
    assert jackknife(0.0, [0.0, 0.0, 0.1], 50) == jackknife(0.0, [0.01, 0.01, 0.1], 50)


def test_the_mde_is_the_one_of_three_against_three() -> None:
    parts = [Component(0.5, 3), Component(0.5, 3)]  # METRICS.md: 3.76 standard errors
    assert mde(parts) == pytest.approx(3.72, abs=0.05)
    assert math.isnan(mde([]))


def test_seeds_are_counted_until_the_effect_would_be_seen() -> None:
    parts = [Component(1e-6, 400, seeds=False), Component(0.01, 3), Component(0.02, 3)]
    seeds = seeds_to_see(parts, 0.1)
    assert seeds is not None
    assert seeds > 3

    def expected(count: int) -> float:
        halves = [Component(0.03 / count, count), Component(0.06 / count, count)]
        return mde([parts[0], *halves])

    assert expected(seeds) < 0.1 <= expected(seeds - 1)


def test_variance_between_latents_cannot_be_trained_away() -> None:
    assert seeds_to_see([Component(0.01, 50, seeds=False), Component(0.01, 3)], 0.1) is None
    assert seeds_to_see([], 0.1) is None


def test_a_large_effect_is_seen_with_three_seeds() -> None:
    assert seeds_to_see([Component(1e-4, 5), Component(1e-4, 5)], 0.2) == 3


def test_as_many_seeds_as_there_are_decide_nothing() -> None:
    def share(value: float, spread: float) -> Interval:
        return student(value, [Component(spread**2, 3)])

    wide = seeds_to_decide(share(0.06, 0.03), share(0.04, 0.03), 0.10)
    assert wide is not None
    assert wide > 3
    assert seeds_to_decide(share(0.06, 0.001), share(0.04, 0.001), 0.10) is None
    assert seeds_to_decide(share(0.30, 0.05), share(0.20, 0.05), 0.10) is not None  # towards a "no"
    assert seeds_to_decide(share(0.30, 0.05), share(0.05, 0.05), 0.10) is None
