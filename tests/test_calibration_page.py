"""The arithmetic behind docs/calibration.md, on cases whose answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from calibration_page import (
    Correlation,
    Point,
    Truth,
    correlation,
    equal_variance,
    judged,
    points_of,
    verdict,
)
from scipy.stats import spearmanr


def points(x: np.ndarray, y: np.ndarray, *, sizes: int = 1) -> list[Point]:
    return [
        Point(float(a), {"t": float(b)}, "w", f"w {at % sizes}", str(at))
        for at, (a, b) in enumerate(zip(x, y, strict=True))
    ]


def test_one_stratum_gives_spearmans_correlation() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    found = correlation(points(x, y), "t", lambda point: point.size)
    assert found is not None
    assert found.rho == pytest.approx(spearmanr(x, y).statistic)
    assert found.low < found.rho < found.high
    assert found.high - found.low < 0.7


def test_what_sizes_alone_explain_is_no_correlation_with_size_fixed() -> None:
    rng = np.random.default_rng(1)
    size = np.arange(60) % 3
    x, y = size + 0.1 * rng.normal(size=60), size + 0.1 * rng.normal(size=60)
    both = points(x, y, sizes=3)
    fixed = correlation(both, "t", lambda point: point.size)
    overall = correlation(both, "t", lambda point: point.world)
    assert fixed is not None
    assert overall is not None
    assert fixed.low < 0 < fixed.high
    assert overall.rho > 0.8


def test_an_interval_draws_starts_and_not_subjects() -> None:
    rng = np.random.default_rng(2)
    x, y = np.repeat(rng.normal(size=12), 10), np.repeat(rng.normal(size=12), 10)
    alone = points(x, y)
    shared = [
        Point(point.value, point.truth, "w", "w", str(at // 10)) for at, point in enumerate(alone)
    ]
    wide, narrow = (correlation(one, "t", lambda point: point.world) for one in (shared, alone))
    assert wide is not None
    assert narrow is not None
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_too_few_subjects_and_constant_scores_have_no_correlation() -> None:
    few = points(np.arange(9.0), np.arange(9.0))
    assert correlation(few, "t", lambda point: point.size) is None
    assert correlation(points(np.ones(20), np.arange(20.0)), "t", lambda p: p.size) is None
    many_sizes = points(np.arange(20.0), np.arange(20.0), sizes=10)
    assert correlation(many_sizes, "t", lambda point: point.size) is None


@pytest.mark.parametrize(
    ("better", "found", "word"),
    [
        ("higher", [Correlation(0.5, 0.2, 0.7), Correlation(0.1, -0.2, 0.3)], "right"),
        ("lower", [Correlation(-0.5, -0.7, -0.2), None], "right"),
        ("lower", [Correlation(0.5, 0.2, 0.7), None], "**wrong**"),
        ("higher", [Correlation(0.5, 0.2, 0.7), Correlation(-0.5, -0.7, -0.2)], "**wrong**"),
        ("higher", [Correlation(0.1, -0.2, 0.3), None], "not shown"),
        ("higher", [None, None], "not shown"),
        (None, [Correlation(0.5, 0.2, 0.7)], ""),
    ],
)
def test_a_direction_is_right_if_shown_and_nowhere_contradicted(
    better: str | None, found: list[Correlation | None], word: str
) -> None:
    assert verdict(better, found) == word


@pytest.mark.parametrize(
    ("word", "share", "no", "said"),
    [
        ("no", 0.3, True, "right"), ("no", 0.0, False, "**wrong**"), ("no", math.nan, False, ""),
        ("none-found", 0.0, False, "right"), ("none-found", 0.3, True, "**wrong**"),
        ("graded", 0.5, True, ""), ("same", 0.5, True, "**wrong**"),
        ("undecided", 0.3, True, ""), ("not-measurable", 0.3, True, ""),
    ],
)  # fmt: skip
def test_an_answer_is_held_against_the_truth(word: str, share: float, no: bool, said: str) -> None:
    assert judged(word, share, no) == said


def test_what_is_missing_is_a_share_of_what_every_larger_one_finds() -> None:
    truth = Truth(
        {
            "small": np.array([0.95, 0.1, 0.8, 0.1]),
            "large0": np.array([0.95, 0.95, 0.95, 0.95]),
            "large1": np.array([0.95, 0.95, 0.95, 0.5]),
        },
        {"small": 0.2, "large0": 0.4, "large1": 0.6},
    )
    assert truth.missing(["small"], ["large0", "large1"]) == pytest.approx(1 / 3)
    assert truth.shared(["large0", "large1"]) == pytest.approx(3 / 4)
    assert truth.sums(["large0", "large1"]) == pytest.approx(0.5)
    nothing = Truth({**truth.cosines, "none": np.zeros(4)}, truth.composed)
    assert math.isnan(nothing.missing(["small"], ["none"]))


def test_a_score_of_a_pair_is_about_the_sae_that_its_metric_names() -> None:
    truths = {
        name: {"recovery_centred": at, "precision_centred": at} for at, name in enumerate("ab")
    }
    row: dict[str, Any] = {
        "subject": ["a", "b"], "value": 1.0, "axes": {"world": "w", "width": [8, 16]},
    }  # fmt: skip
    starts = {"a": "w8-s0", "b": "w16-s0"}
    about = {
        metric: points_of([{**row, "metric": metric}], truths, starts)[0].truth["recovery_centred"]
        for metric in ("stitching", "composition", "seed_matching")
    }
    assert about == {"stitching": 0, "composition": 1, "seed_matching": 0.5}


def test_pairs_of_equal_variance_and_other_recovery_are_found() -> None:
    truths = {
        name: {"recovery_centred": recovery, "precision_centred": 0.5}
        for name, recovery in {"w-a": 0.9, "w-b": 0.6, "v-a": 0.2, "w-c": 0.9}.items()
    }
    text = equal_variance(truths, {"w-a": 0.80, "w-b": 0.81, "v-a": 0.80, "w-c": 0.95})
    assert text.startswith("1 pairs of SAEs of one world")
    assert "| w-a | .80 | .90 | .50 |" in text
    assert "v-a" not in text
