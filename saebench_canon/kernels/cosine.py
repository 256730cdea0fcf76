"""Largest cosines between two sets of rows, a block at a time."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 2**24  # cosines in memory at once, 64 MiB in float32
UNIT = 1e-6  # how far from 1 a norm may be in the search
DECIMALS = 6  # float32 rows carry no more; cosines that agree to these are ties


def unit(rows: Tensor) -> Tensor:
    """The rows [m, d] at unit norm, in float64."""
    norms = torch.linalg.vector_norm(rows.double(), dim=1, keepdim=True)
    return rows.double().div(norms.clamp(min=torch.finfo(torch.float64).tiny))


def normalised(rows: Tensor) -> Tensor:
    """The rows [m, d] at unit norm in their own dtype; returned as they are if they have it."""
    height = max(1, BLOCK // rows.shape[1])
    parts = torch.split(rows, height)
    if all(bool(((part.double().norm(dim=1) - 1).abs() <= UNIT).all()) for part in parts):
        return rows
    return torch.cat([unit(part).to(rows.dtype) for part in parts])


def tied(cosines: Tensor) -> Tensor:
    """Cosines rounded for a decision, so that rescaled or duplicated float32 rows are equal."""
    return cosines.round(decimals=DECIMALS)


def max_cosine(
    rows: Tensor, others: Tensor, *, block: int = BLOCK, others_are_rows: bool = False
) -> tuple[Tensor, Tensor]:
    """Each row's largest cosine with another set's rows [m] float64, and that row's index [m].

    `rows` [m, d] and `others` [m2, d] of any norms, neither empty. The search runs in the rows'
    dtype; the cosine is then computed in float64. At most `block` cosines are in memory at once,
    and a copy of the others where they are not of unit norm. With `others_are_rows` both are one
    set and a row is not compared with itself (m ≥ 2).
    """
    right = normalised(others).to(rows.dtype)
    height = max(1, block // len(right))
    nearest = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    largest = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    for start in range(0, len(rows), height):
        exact = unit(rows[start : start + height])
        cosines = exact.to(rows.dtype) @ right.T
        if others_are_rows:
            index = torch.arange(len(cosines), device=rows.device)
            cosines[index, index + start] = -torch.inf
        best = cosines.argmax(dim=1)
        nearest[start : start + height] = best
        largest[start : start + height] = (exact * unit(others[best])).sum(dim=1)
    return largest.clamp(-1, 1), nearest
