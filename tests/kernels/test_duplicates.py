"""Duplicates: one row stands for those that are nearly the same."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saebench_canon.kernels.duplicates import representatives


def brute_force(rows: Tensor, order: list[int], same: float) -> list[int]:
    table = (rows.double() / rows.double().norm(dim=1, keepdim=True)).tolist()
    standing: list[int] = []
    owner = list(range(len(table)))
    for row in order:
        best, found = same, None
        for other in sorted(standing):
            cosine = round(sum(a * b for a, b in zip(table[row], table[other], strict=True)), 6)
            if cosine > best or (found is None and cosine >= same):
                best, found = cosine, other
        if found is None:
            standing.append(row)
        else:
            owner[row] = found
    return owner


@given(seed=st.integers(0, 10_000), count=st.integers(1, 24), block=st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_it_is_the_plain_loop(seed: int, count: int, block: int) -> None:
    source = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 3, generator=source)
    rows = centres[torch.randint(4, (count,), generator=source)]
    rows = rows + 0.3 * torch.randn(count, 3, generator=source)
    order = torch.randperm(count, generator=source)
    found = representatives(rows, order, block=block)
    assert found.tolist() == brute_force(rows, order.tolist(), 0.95)


def test_the_first_in_order_stands_for_its_copies() -> None:
    rows = torch.eye(3)[[0, 0, 1, 0]]
    assert representatives(rows, torch.tensor([3, 0, 1, 2])).tolist() == [3, 3, 2, 3]


def test_rows_on_a_circle_do_not_become_one_group() -> None:
    angles = torch.arange(36) * math.tau / 36  # neighbours at cosine .985
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    groups = len(set(representatives(rows, torch.arange(36)).tolist()))
    assert groups >= 10  # linkage would find one


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_opposite_rows_are_no_duplicates(sign: float) -> None:
    rows = torch.stack([torch.tensor([1.0, 0.0]), torch.tensor([sign, 0.0])])
    assert len(set(representatives(rows, torch.arange(2)).tolist())) == (1 if sign > 0 else 2)
