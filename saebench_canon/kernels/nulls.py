"""Random rows to compare a dictionary with: isotropic, or with its mean and covariance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from saebench_canon.kernels.cosine import unit

SMALL = 1e-12  # eigenvalues below this part of the largest are rounding
CLOSE = 1e-6  # of the covariance's norm, and of a unit row for the mean
TURNS = 60  # at most; about 20 where there are several rows for each direction
LEAP = 3  # how many times as far every second turn goes


def isotropic(m: int, d: int, generator: torch.Generator) -> Tensor:
    """Unit rows of uniform direction, [m, d] float64."""
    return unit(torch.randn(m, d, generator=generator, dtype=torch.float64))


def covariance_matched(
    rows: Tensor, generator: torch.Generator, *, count: int | None = None
) -> Tensor:
    """Random unit rows with the mean and covariance of the rows at unit norm.

    `rows` [m, d] of any norms; returns [count or m, d] float64. Its sample moments equal those of
    the dictionary: to about 1e-6 of them where there are several rows for each direction, to about
    1e-4 where there are hardly more rows than directions. With no more rows than directions (a
    small `count`) they are equal only on average and before the rows are brought to unit norm.
    Moments are summed in the order of the rows: sort them where the last bit matters.
    """
    rows = unit(rows)
    return _matched(rows, count or len(rows), generator, unit)


def covariance_matched_pairs(
    rows: Tensor, others: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random unit rows for two tables [m, d] and [m, d2], drawn together so that they stay related.

    Row i of both is one draw with the mean and covariance of the unit rows side by side: encoders
    that lie along their decoder rows still do so. Precision as in `covariance_matched`.
    """
    d = rows.shape[1]
    table = torch.cat([unit(rows), unit(others)], dim=1)

    def halves(drawn: Tensor) -> Tensor:
        return torch.cat([unit(drawn[:, :d]), unit(drawn[:, d:])], dim=1)

    drawn = _matched(table, len(table), generator, halves)
    return drawn[:, :d], drawn[:, d:]


def _matched(
    table: Tensor, size: int, generator: torch.Generator, norm: Callable[[Tensor], Tensor]
) -> Tensor:
    """Draws [size, d] that have the table's mean and covariance after they are normed.

    Norming changes the moments, and mapping to the table's moments changes the norms, so both are
    done in turn. Every second turn goes `LEAP` times as far, because norming undoes a part of it.
    """
    mean = table.mean(dim=0)
    centred = table - mean
    covariance = centred.T @ centred / len(table)
    root, rank = _power(covariance, 0.5)
    drawn = torch.randn(size, len(mean), generator=generator, dtype=torch.float64)
    drawn = norm(drawn.to(table.device) @ root + mean)
    if size <= rank:
        return drawn
    for turn in range(TURNS):
        sample_mean = drawn.mean(dim=0)
        drawn = drawn - sample_mean
        sample_covariance = drawn.T @ drawn / size
        off = (sample_covariance - covariance).norm() > CLOSE * covariance.norm()
        if not off and (sample_mean - mean).norm() <= CLOSE:
            return drawn + sample_mean
        inner, _ = _power(root @ sample_covariance @ root, -0.5)
        towards = root @ inner @ root  # the only symmetric map to the table's covariance
        far = LEAP if turn % 2 else 1
        drawn = drawn @ torch.linalg.matrix_power(towards, far)
        drawn = norm(drawn + mean + (far - 1) * (mean - sample_mean))
    return drawn


def _power(matrix: Tensor, exponent: float) -> tuple[Tensor, int]:
    """A power of a symmetric matrix [d, d] on its range, and its rank.

    Unlike a factor it is unique, so rows in another order have the same null.
    """
    values, vectors = torch.linalg.eigh(matrix)
    positive = values > SMALL * values[-1].clamp(min=SMALL)
    powers = torch.where(positive, values.clamp(min=SMALL**2) ** exponent, 0)
    return (vectors * powers) @ vectors.T, int(positive.sum())
