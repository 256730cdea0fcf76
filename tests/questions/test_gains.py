"""The gain above its floor, against plain loops and by hand."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from made_up_family import names_of
from scipy import stats

from saebench_canon.questions.gains import gain_above_floor, gain_both_ways


@pytest.mark.parametrize(("small", "large"), [(1, 3), (2, 3), (3, 5)])
def test_it_agrees_with_plain_loops(small: int, large: int) -> None:
    generator = np.random.default_rng(small)
    smalls, larges = names_of("s", small), names_of("l", large)
    gains = {key: float(generator.normal(0.1, 0.05)) for key in permutations(smalls + larges, 2)}
    by_small, by_large = [], []
    for s in smalls:
        by_small.append(sum(gains[s, t] for t in larges) / len(larges))
    for q in larges:
        others = [t for t in larges if t != q]
        by_large.append(sum(gains[q, t] for t in others) / len(others))
    a = float(np.var(by_small, ddof=1)) / small if small > 1 else 0.0
    b = float(np.var(by_large, ddof=1)) / large
    df = (a + b) ** 2 / ((a**2 / (small - 1) if small > 1 else 0.0) + b**2 / (large - 1))
    half = float(stats.t.ppf(0.975, df)) * math.sqrt(a + b)
    gain, floor = sum(by_small) / small, sum(by_large) / large
    result = gain_above_floor(gains, smalls, larges)
    assert result.gain == pytest.approx(gain)
    assert result.floor == pytest.approx(floor)
    ends = (result.above.lo, result.above.hi)
    assert ends == pytest.approx((gain - floor - half, gain - floor + half))


def test_equal_gains_have_no_width() -> None:
    gains = dict.fromkeys(permutations(["s0", "s1", "l0", "l1", "l2"], 2), 0.1)
    result = gain_above_floor(gains, ["s0", "s1"], ["l0", "l1", "l2"])
    assert result.above.value == pytest.approx(0)
    assert result.above.hi == pytest.approx(0, abs=1e-12)


def documents(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    error = generator.uniform(1, 3, 12)
    return np.arange(12), error, error * generator.uniform(0.1, 0.4, 12)


def test_both_ways_are_paired_by_documents() -> None:
    there, back = documents(0), documents(1)
    result = gain_both_ways({("s", "l"): there, ("l", "s"): back}, "s", "l")
    assert result is not None
    shares = [removed.sum() / error.sum() for _, error, removed in (there, back)]
    assert result.value == pytest.approx(shares[0] - shares[1])
    parts = [
        sum(
            sign * (removed[at] - share * error[at]) / error.sum()
            for sign, share, (_, error, removed) in zip((1, -1), shares, (there, back), strict=True)
        )
        for at in range(12)
    ]
    half = float(stats.t.ppf(0.975, 11)) * math.sqrt(12 / 11 * sum(part**2 for part in parts))
    assert (result.lo, result.hi) == pytest.approx((result.value - half, result.value + half))


def test_the_same_both_ways_is_no_gain() -> None:
    there = documents(2)
    result = gain_both_ways({("s", "l"): there, ("l", "s"): there}, "s", "l")
    assert result is not None
    assert result.value == 0
    assert gain_both_ways({("s", "l"): there}, "s", "l") is None
