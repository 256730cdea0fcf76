"""The largest are found whatever the bound, the size and the ties: as a full sort finds them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saebench_canon.kernels import top_k as largest


def numbers(*shape: int, seed: int, ties: bool) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return np.round(drawn, 1) if ties else drawn


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(1, 6),
    st.sampled_from([3, 9, 40, 64, 100, 131]),
    st.integers(1, 3),
    st.booleans(),
)
def test_the_largest_of_each_row_are_those_of_a_sort(
    seed: int, n: int, m: int, k: int, ties: bool
) -> None:
    table = numbers(n, m, seed=seed, ties=ties) - 0.5
    expected = [
        row * m + column
        for row in range(n)
        for column in range(m)
        if table[row, column] >= max(np.sort(table[row])[-k], 0) and table[row, column] > 0
    ]
    assert largest.of_rows(table, k).tolist() == expected


def test_a_row_of_one_large_group_does_not_hide_others() -> None:
    table = np.full((2, 64), -1.0, dtype=np.float32)
    table[0, [0, 8, 16, 24]] = [4, 3, 2, 1]  # all in one group
    table[1, 5] = 7
    assert largest.of_rows(table, 2).tolist() == [0, 8, 69]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(1, 300),
    st.integers(1, 40),
    st.floats(0, 3),
    st.integers(1, 50),
    st.booleans(),
)
def test_the_largest_of_all_are_those_of_a_sort(
    seed: int, size: int, count: int, floor: float, chunk: int, ties: bool
) -> None:
    flat = numbers(size, seed=seed, ties=ties)
    positive = np.sort(flat[flat > 0])
    low = float(positive[-count:].min()) if len(positive) else 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(largest, "CHUNK", chunk)
        index, value, cut = largest.candidates(flat, count, floor)
        for bound in (0, 1000):
            patch.setattr(largest, "PARTITIONED", bound)
            assert largest.least(flat, count, floor) == low
    assert cut == low
    assert np.array_equal(flat[index], value)
    chosen = index[value >= low]
    assert chosen.tolist() == np.flatnonzero((flat >= low) & (flat > 0)).tolist()
