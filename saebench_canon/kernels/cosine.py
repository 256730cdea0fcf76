"""Largest cosines between two sets of rows, a block at a time."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 2**24  # cosines held at once, 64 MiB in float32
DECIMALS = 6  # float32 rows carry no more; cosines that agree so far are ties


def unit(rows: Tensor) -> Tensor:
    """The rows [m, d] at unit norm, in float64."""
    norms = torch.linalg.vector_norm(rows.double(), dim=1, keepdim=True)
    return rows.double().div(norms.clamp(min=torch.finfo(torch.float64).tiny))


def tied(cosines: Tensor) -> Tensor:
    """Cosines for a decision: equal where rescaled or duplicated float32 rows would be equal."""
    return cosines.round(decimals=DECIMALS)


def max_cosine(
    rows: Tensor, others: Tensor, *, block: int = BLOCK, others_are_rows: bool = False
) -> tuple[Tensor, Tensor]:
    """Each row's largest cosine with another set's rows, and with which: [m] float64, [m] int64.

    `rows` [m, d] and `others` [m2, d] of any norms, neither empty. The search runs in the rows'
    dtype, the cosine found is computed in float64. At most `block` cosines are held at once. With
    `others_are_rows` both are one set and a row is not compared with itself (m ≥ 2).
    """
    dtype = rows.dtype
    exact, exact_others = unit(rows), unit(others)
    left, right = exact.to(dtype), exact_others.to(dtype)
    height = max(1, block // len(right))
    nearest = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    for start in range(0, len(left), height):
        cosines = left[start : start + height] @ right.T
        if others_are_rows:
            own = torch.arange(len(cosines), device=rows.device)
            cosines[own, own + start] = -torch.inf
        nearest[start : start + height] = cosines.argmax(dim=1)
    found = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    height = max(1, block // rows.shape[1])
    for start in range(0, len(left), height):
        stop = start + height
        found[start:stop] = (exact[start:stop] * exact_others[nearest[start:stop]]).sum(dim=1)
    return found.clamp(-1, 1), nearest
