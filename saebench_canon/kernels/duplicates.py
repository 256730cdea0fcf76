"""Rows that are nearly the same direction, and which of them stands for the others."""

from __future__ import annotations

import torch
from torch import Tensor

from saebench_canon.kernels.cosine import BLOCK, tied, unit

SAME = 0.95  # cosine of duplicates
SEARCH = 1e-4  # how far a cosine of the search, in float32, may be off


def representatives(
    rows: Tensor, order: Tensor, *, same: float = SAME, block: int = BLOCK
) -> Tensor:
    """The row that each row is a duplicate of, itself if of none, [m] int64 (ours).

    `rows` [m, d] of any norms are taken in `order` [m]. Each joins the nearest representative with
    a cosine of `same` or more, or else becomes one. This is greedy, and not linkage: rows that lie
    close on a circle do not become one group.
    """
    table = unit(rows)
    near = _neighbours(table, same, block)
    owner = torch.arange(len(table))
    stands = [False] * len(table)
    for row in order.tolist():
        others = [(cosine, -other) for other, cosine in near.get(row, ()) if stands[other]]
        if others:
            owner[row] = -max(others)[1]
        else:
            stands[row] = True
    return owner


def _neighbours(table: Tensor, same: float, block: int) -> dict[int, list[tuple[int, float]]]:
    """The rows at a cosine of `same` or more, for each row that has any."""
    near: dict[int, list[tuple[int, float]]] = {}
    search = table.float()
    height = max(1, block // max(1, len(table)))
    for start in range(0, len(table), height):
        cosines = search[start : start + height] @ search.T
        index = torch.arange(len(cosines), device=cosines.device)
        cosines[index, index + start] = -1.0
        row, other = (cosines >= same - SEARCH).nonzero().unbind(dim=1)
        exact = tied((table[row + start] * table[other]).sum(dim=1))
        for a, b, cosine in zip(
            (row + start).tolist(), other.tolist(), exact.tolist(), strict=True
        ):
            if cosine >= same:
                near.setdefault(a, []).append((b, cosine))
    return near
