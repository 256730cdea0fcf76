"""Rows that share a direction: whether they do, and what is left of them without it."""

from __future__ import annotations

import torch
from torch import Tensor

from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.mean_row import is_shared

KEEPS = 0.1  # norm below which a centred row is nothing but the common direction


def shares_direction(rows: Tensor) -> bool:
    """Whether the mean of the unit rows [m, d] is longer than that of rows by chance."""
    if len(rows) == 0:
        return False
    return is_shared(float(unit(rows).mean(dim=0).norm()), len(rows))


def centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The unit rows less their mean, at unit norm again [m, d] float64, and which are left [m].

    A row that keeps less than a tenth of its norm is left as zeros and out of the mask.
    """
    table = unit(rows)
    apart = table - table.mean(dim=0)
    left = apart.norm(dim=1) >= KEEPS
    return torch.where(left[:, None], unit(apart), 0), left
