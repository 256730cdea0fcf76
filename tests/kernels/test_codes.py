"""Sparse codes do what dense codes do, also where rows, columns or tails are empty."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saebench_canon.kernels.codes import Codes

SHAPES = [(0, 3), (1, 1), (4, 6), (7, 2)]


def dense(n: int, m: int, seed: int = 0, share: float = 0.4) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(n, m, generator=g, dtype=torch.float64)
    return torch.where(torch.rand(n, m, generator=g) < share, values.abs() + 0.1, 0)


EMPTY_EDGES = torch.tensor(
    [[0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 1, 3, 0], [0, 0, 0, 0]], dtype=torch.float64
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9), st.integers(1, 7), st.integers(0, 99), st.sampled_from([0.0, 0.2, 0.9]))
def test_everything_agrees_with_dense_codes(n: int, m: int, seed: int, share: float) -> None:
    f = dense(n, m, seed, share)
    codes = Codes.from_dense(f)
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(m, 3, generator=g, dtype=torch.float64)
    x = torch.randn(n, 3, generator=g, dtype=torch.float64)
    assert len(codes) == n
    assert torch.equal(codes.dense(), f)
    assert torch.equal(codes.counts, (f > 0).sum(0))
    assert torch.equal(codes.live, (f > 0).any(0))
    torch.testing.assert_close(codes.decode(rows), f @ rows)
    torch.testing.assert_close(codes.transposed_matmul(x), f.T @ x)
    torch.testing.assert_close(codes.column_sums(2), (f**2).sum(0))
    mask = torch.rand(m, generator=g) < 0.5
    assert torch.equal(codes.keep(mask).dense(), f * mask)
    start, stop = sorted(torch.randint(0, n + 1, (2,), generator=g).tolist())
    assert torch.equal(codes.rows(start, stop).dense(), f[start:stop])
    parts = list(codes.chunks(2))
    if parts:
        assert torch.equal(Codes.concatenate(parts).dense(), f)


@pytest.mark.parametrize("mask", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [1, 0, 0, 1]])
def test_keeping_latents_where_first_and_last_tokens_and_latents_are_empty(mask: list[int]) -> None:
    codes = Codes.from_dense(EMPTY_EDGES)
    subset = codes.keep(torch.tensor(mask, dtype=torch.bool))
    assert torch.equal(subset.dense(), EMPTY_EDGES * torch.tensor(mask))
    rows = torch.eye(4, dtype=torch.float64)
    assert torch.equal(subset.decode(rows), EMPTY_EDGES * torch.tensor(mask))
    assert torch.equal(
        subset.transposed_matmul(EMPTY_EDGES), (EMPTY_EDGES * torch.tensor(mask)).T @ EMPTY_EDGES
    )


def test_rows_past_the_end_are_those_there_are() -> None:
    codes = Codes.from_dense(EMPTY_EDGES)
    assert torch.equal(codes.rows(3, 99).dense(), EMPTY_EDGES[3:])
    assert len(codes.rows(5, 9)) == 0


def test_float32_codes_decode_in_the_precision_of_the_rows() -> None:
    f = dense(5, 4).float()
    codes = Codes.from_dense(f)
    rows = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert codes.decode(rows).dtype == torch.float64
    torch.testing.assert_close(codes.decode(rows), f.double() @ rows)
