"""Random rows to compare a dictionary with: isotropic, or with its mean and covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from saebench_canon.kernels.cosine import unit


def isotropic(m: int, d: int, generator: torch.Generator) -> Tensor:
    """Unit rows of uniform direction, [m, d] float64."""
    return unit(torch.randn(m, d, generator=generator, dtype=torch.float64))


def covariance_matched(
    rows: Tensor, generator: torch.Generator, *, count: int | None = None
) -> Tensor:
    """Gaussian rows with the mean and covariance of the normalised rows, brought to unit norm.

    `rows` [m, d] of any norms; returns [count or m, d] float64. Mean and second moments are taken
    over the rows in their order: sort them where the last bit matters.
    """
    rows = unit(rows)
    mean = rows.mean(dim=0)
    centred = rows - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
    root = vectors * values.clamp(min=0).sqrt()
    draws = torch.randn(count or len(rows), rows.shape[1], generator=generator, dtype=torch.float64)
    return unit(draws.to(rows.device) @ root.T + mean)
