"""Rows beside the other rows of their own dictionary: the nearest one, and sums of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saebench_canon.kernels.cosine import BLOCK, tied, unit
from saebench_canon.kernels.nnomp import Pursuit, pursue
from saebench_canon.kernels.sum_rule import Rule
from saebench_canon.metrics.shared.fitted import Fitted, fitted


@dataclass(frozen=True, eq=False)
class OwnRows:
    """The first n rows of a dictionary: largest cosine with another row, which row, and the fit.

    With a single row the cosine is nan and the nearest −1.
    """

    cosine: Tensor  # [n]
    nearest: Tensor  # [n]
    fit: Fitted
    pursuit: Pursuit


def beside_own_rows(rows: Tensor, rule: Rule, gate: float, *, count: int | None = None) -> OwnRows:
    """The first `count` rows [m, d], or all, each beside the other rows of the dictionary."""
    some = rows[:count]
    index = torch.arange(len(some))
    cosine, nearest = nearest_other(rows, len(some))
    pursuit = pursue(some, rows, count=rule.atoms, without=index)
    return OwnRows(cosine, nearest, fitted(pursuit, gate), pursuit)


def nearest_other(rows: Tensor, count: int, *, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """The largest cosine of the first `count` rows [m, d] with another row, and which, [count]."""
    table = unit(rows)
    if len(table) < 2:
        return table.new_full((count,), torch.nan), torch.full((count,), -1)
    cosines, others = [], []
    height = max(1, block // len(table))
    for start in range(0, count, height):
        part = table[start : min(start + height, count)] @ table.T
        index = torch.arange(len(part))
        part[index, index + start] = -torch.inf
        best, other = part.max(dim=1)
        cosines.append(best)
        others.append(other)
    return tied(torch.cat(cosines)), torch.cat(others)
