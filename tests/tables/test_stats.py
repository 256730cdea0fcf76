"""Intervals have known values, and cover what they promise."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from saebench_canon.plugin.table_line import Estimate
from saebench_canon.tables.stats import difference, over_group, over_pairs, over_seeds

T2 = 4.302652729911275  # Student's t, two degrees of freedom, 97.5 %


def test_three_seeds_get_students_interval() -> None:
    estimate = over_seeds({0: [1.0], 1: [2.0], 2: [3.0]})
    assert estimate.value == 2.0
    assert estimate.half_width == pytest.approx(T2 / math.sqrt(3))
    assert (estimate.n, estimate.unit, estimate.kind, estimate.df) == (3, "training seed", "t", 2)
    assert (estimate.lo, estimate.hi) == (
        pytest.approx(2 - T2 / 3**0.5),
        pytest.approx(2 + T2 / 3**0.5),
    )


def test_case_seeds_are_averaged_within_their_training_seed() -> None:
    pooled = over_seeds({0: [0.0, 2.0], 1: [1.0, 3.0], 2: [2.0, 4.0]})
    assert pooled == over_seeds({0: [1.0], 1: [2.0], 2: [3.0]})


def test_a_seed_with_more_case_seeds_weighs_no_more() -> None:
    assert over_seeds({0: [0.0, 0.0, 0.0], 1: [3.0], 2: [3.0]}).value == 2.0


def test_two_seeds_give_both_values_and_no_interval() -> None:
    estimate = over_seeds({0: [1.0], 1: [2.0]}, stderr=0.1)
    assert (estimate.value, estimate.half_width, estimate.values) == (1.5, None, (1.0, 2.0))
    assert estimate.kind == "values"


def test_one_seed_gives_the_document_bootstrap_and_says_it_is_conditional() -> None:
    estimate = over_seeds({0: [1.0]}, stderr=0.1, n=40, unit="document")
    assert estimate.half_width == pytest.approx(2.022691 * 0.1)  # t of 39 degrees
    assert estimate.conditional
    assert (estimate.n, estimate.unit, estimate.seeds) == (40, "document", 1)


def test_one_seed_without_an_error_over_documents_has_no_interval() -> None:
    assert over_seeds({0: [1.0]}).half_width is None
    assert over_seeds({0: [1.0]}, stderr=0.1, unit="meta_seeds").half_width is None


def test_another_level_gives_another_interval() -> None:
    estimate = over_seeds({0: [1.0], 1: [2.0], 2: [3.0]}, level=0.9)
    assert estimate.half_width == pytest.approx(2.919986 / math.sqrt(3))


def test_pairs_that_are_means_of_their_seeds_give_the_interval_of_the_seeds() -> None:
    seeds = {0: 1.0, 1: 2.0, 2: 4.0, 3: 4.5}
    pairs = {(a, b): [(seeds[a] + seeds[b]) / 2] for a, b in combinations(seeds, 2)}
    estimate, plain = over_pairs(pairs), over_seeds({s: [v] for s, v in seeds.items()})
    assert estimate.value == pytest.approx(plain.value)
    assert estimate.half_width == pytest.approx(plain.half_width)
    assert (estimate.n, estimate.kind) == (4, "jackknife")


def test_a_pair_of_two_seeds_has_no_interval() -> None:
    estimate = over_pairs({(0, 1): [0.5]})
    assert (estimate.value, estimate.half_width, estimate.n) == (0.5, None, 2)


def test_pairs_that_lack_a_seed_when_one_is_left_out_have_no_interval() -> None:
    assert over_pairs({(0, 1): [0.5], (0, 2): [0.7]}).half_width is None


def test_a_groups_own_error_gets_students_quantile() -> None:
    assert over_group(0.8, 0.01, 3).half_width == pytest.approx(T2 * 0.01)
    assert over_group(0.8, 0.01, 2).half_width is None
    assert over_group(0.8, None, 3).half_width is None


def test_welch_on_equal_spreads_has_the_pooled_degrees() -> None:
    a = over_seeds({0: [1.0], 1: [2.0], 2: [3.0]})
    estimate = difference(a, over_seeds({0: [0.0], 1: [1.0], 2: [2.0]}))
    assert (estimate.value, estimate.df) == (1.0, pytest.approx(4))
    assert estimate.half_width == pytest.approx(2.776445 * math.sqrt(2 / 3))


def test_welch_of_a_constant_keeps_the_other_sides_degrees() -> None:
    a = over_seeds({0: [1.0], 1: [2.0], 2: [3.0]})
    flat = over_seeds({0: [1.0], 1: [1.0], 2: [1.0]})
    assert difference(a, flat).half_width == pytest.approx(a.half_width)
    assert difference(flat, flat).half_width == 0.0


def test_a_difference_without_an_error_on_one_side_has_no_interval() -> None:
    one_seed = over_seeds({0: [1.0]})
    assert difference(over_seeds({0: [1.0], 1: [2.0], 2: [3.0]}), one_seed).half_width is None


def covers(estimate: Estimate, truth: float) -> bool:
    return (
        estimate.lo is not None and estimate.hi is not None and estimate.lo <= truth <= estimate.hi
    )


@pytest.mark.parametrize("seeds", [3, 5])
def test_students_interval_covers_95_percent(seeds: int) -> None:
    draws = np.random.default_rng(7).normal(size=(4000, seeds)).tolist()
    share = np.mean([covers(over_seeds({s: [v] for s, v in enumerate(d)}), 0.0) for d in draws])
    assert 0.94 < share < 0.96


def test_pooling_meta_seeds_as_if_they_were_seeds_covers_far_less() -> None:
    draw = np.random.default_rng(8)
    right, wrong = [], []
    for _ in range(2000):
        seeds = draw.normal(size=3)
        values = seeds[:, None] + 0.2 * draw.normal(size=(3, 2))
        right.append(covers(over_seeds(dict(enumerate(values.tolist()))), 0.0))
        wrong.append(covers(over_seeds({i: [v] for i, v in enumerate(values.flat)}), 0.0))
    assert 0.935 < np.mean(right) < 0.965
    assert np.mean(wrong) < 0.82


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_jackknife_covers_pair_scores_and_independence_does_not(seeds: int) -> None:
    draw = np.random.default_rng(9)
    jackknife, independent = [], []
    for _ in range(2500):
        of_seed = draw.normal(size=seeds)
        pairs = {
            (a, b): [
                float(of_seed[a] + of_seed[b] + 0.3 * of_seed[a] * of_seed[b] + 0.3 * draw.normal())
            ]
            for a, b in combinations(range(seeds), 2)
        }
        jackknife.append(covers(over_pairs(pairs), 0.0))
        independent.append(covers(over_seeds(pairs), 0.0))
    assert 0.92 < np.mean(jackknife) < 0.98
    assert np.mean(independent) < np.mean(jackknife) - 0.1


def test_every_unit_is_one_that_values_may_count() -> None:
    """A table that reads a unit by a word that no metric writes has a branch that is never run."""
    from saebench_canon.plugin.metric import UNITS

    assert over_seeds({0: [1.0], 1: [2.0]}).unit in UNITS
    assert over_seeds({0: [1.0]}, stderr=0.1, n=4, unit="document").unit in UNITS
