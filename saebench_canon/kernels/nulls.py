"""Random rows to compare a dictionary with: isotropic, or with its mean and covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from saebench_canon.kernels.cosine import unit

SMALL = 1e-12  # eigenvalues below this part of the largest are rounding


def isotropic(m: int, d: int, generator: torch.Generator) -> Tensor:
    """Unit rows of uniform direction, [m, d] float64."""
    return unit(torch.randn(m, d, generator=generator, dtype=torch.float64))


def covariance_matched(
    rows: Tensor, generator: torch.Generator, *, count: int | None = None
) -> Tensor:
    """Random rows with the mean and covariance of the normalised rows, brought to unit norm.

    `rows` [m, d] of any norms; returns [count or m, d] float64. Before they are brought to unit
    norm, the sample moments of the rows drawn equal those of the dictionary, where there are enough
    of them: Gaussian draws would spread the spectrum once more and so look more structured than the
    rows they stand for. Moments are taken over the rows in their order: sort them where the last
    bit matters.
    """
    rows = unit(rows)
    mean = rows.mean(dim=0)
    centred = rows - mean
    covariance = centred.T @ centred / len(rows)
    root, rank = _power(covariance, 0.5)
    size = count or len(rows)
    draws = torch.randn(size, len(mean), generator=generator, dtype=torch.float64).to(rows.device)
    draws = draws @ root
    if size > rank:
        draws = draws - draws.mean(dim=0)
        found = draws.T @ draws / size
        inner, _ = _power(root @ found @ root, -0.5)
        draws = draws @ (root @ inner @ root)  # the one symmetric map that does it
    return unit(draws + mean)


def _power(matrix: Tensor, exponent: float) -> tuple[Tensor, int]:
    """A power of a symmetric matrix [d, d] on its range, and its rank.

    Unlike a factor it is unique, so rows in another order have the same null.
    """
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > SMALL * values[-1].clamp(min=SMALL)
    powers = torch.where(kept, values.clamp(min=SMALL**2) ** exponent, 0)
    return (vectors * powers) @ vectors.T, int(kept.sum())
