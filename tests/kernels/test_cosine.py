"""Largest cosines agree with the plain loop, whatever the norms and the size of a block."""

from __future__ import annotations

import brute_force
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saebench_canon.kernels.cosine import max_cosine, tied


def random_rows(m: int, d: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    scale = torch.rand(m, 1, generator=g, dtype=torch.float64) * 5 + 0.1
    return torch.randn(m, d, generator=g, dtype=torch.float64) * scale


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(0, 99))
def test_largest_cosines_agree_with_the_loop(m: int, m2: int, block: int, seed: int) -> None:
    rows, others = random_rows(m, 5, seed), random_rows(m2, 5, seed + 1)
    cosines, nearest = max_cosine(rows, others, block=block)
    best, which = brute_force.max_cosines(rows, others)
    torch.testing.assert_close(cosines, torch.tensor(best, dtype=torch.float64))
    assert nearest.tolist() == which


def test_a_row_is_not_its_own_neighbour_within_one_set() -> None:
    rows = random_rows(7, 4, 0)
    cosines, nearest = max_cosine(rows, rows, others_are_rows=True, block=10)
    for i in range(7):
        others = [j for j in range(7) if j != i]
        best, which = brute_force.max_cosines(rows[i : i + 1], rows[others])
        assert cosines[i].item() == pytest.approx(best[0])
        assert nearest[i] == others[which[0]]


def test_float32_rows_get_the_cosine_in_float64_and_rescaled_ones_tie() -> None:
    rows, others = random_rows(50, 64, 2).float(), random_rows(80, 64, 3).float()
    cosines, _ = max_cosine(rows, others)
    scales = torch.rand(50, 1, generator=torch.Generator().manual_seed(4)) * 9 + 0.1
    rescaled, _ = max_cosine(rows * scales, others)
    best, _ = brute_force.max_cosines(rows.double(), others.double())
    torch.testing.assert_close(cosines, torch.tensor(best, dtype=torch.float64), atol=3e-7, rtol=0)
    assert (
        tied(cosines) == tied(rescaled)
    ).float().mean() > 0.9  # but for a rare edge of the rounding
    torch.testing.assert_close(tied(cosines), tied(rescaled), atol=2e-6, rtol=0)


def test_a_cosine_of_exactly_the_threshold_reaches_it() -> None:
    rows = torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.3, 0.4]])
    cosines, _ = max_cosine(rows, torch.tensor([[7.0, 0.0]]))
    assert (tied(cosines) == 0.6).all()
