"""The gain above its floor, against plain loops and by hand."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from made_up_family import names_of
from scipy import stats

from saebench_canon.questions.gains import gain_above_floor


@pytest.mark.parametrize(("small", "large"), [(1, 3), (2, 3), (3, 5)])
def test_it_agrees_with_plain_loops(small: int, large: int) -> None:
    generator = np.random.default_rng(small)
    smalls, larges = names_of("s", small), names_of("l", large)
    gains = {key: float(generator.normal(0.1, 0.05)) for key in permutations(smalls + larges, 3)}
    by_small, by_large = [], []
    for s in smalls:
        pairs = [(t, p) for t in larges for p in larges if p != t]
        by_small.append(sum(gains[s, t, p] for t, p in pairs) / len(pairs))
    for q in larges:
        pairs = [(t, p) for t in larges for p in larges if len({q, t, p}) == 3]
        by_large.append(sum(gains[q, t, p] for t, p in pairs) / len(pairs))
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
    gains = dict.fromkeys(permutations(["s0", "s1", "l0", "l1", "l2"], 3), 0.1)
    result = gain_above_floor(gains, ["s0", "s1"], ["l0", "l1", "l2"])
    assert result.above.value == pytest.approx(0)
    assert result.above.hi == pytest.approx(0, abs=1e-12)
