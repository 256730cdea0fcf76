"""Random rows to compare a dictionary with: isotropic, or with its mean and covariance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from saebench_canon.kernels.cosine import unit

SMALL = 1e-12  # eigenvalues below this part of the largest are rounding
CLOSE = 1e-6  # of the covariance's norm, and of a unit row for the mean
TURNS = 60  # at most; about 20 where there are several rows for each direction
LEAP = 3


def isotropic(m: int, d: int, generator: torch.Generator) -> Tensor:
    """Unit rows of uniform direction, [m, d] float64."""
    return unit(torch.randn(m, d, generator=generator, dtype=torch.float64))


def covariance_matched(
    rows: Tensor, generator: torch.Generator, *, count: int | None = None
) -> Tensor:
    """Random unit rows with the mean and covariance of the rows at unit norm.

    `rows` [m, d] of any norms; returns [count or m, d] float64. The sample moments of what is
    returned equal those of the dictionary: to about 1e-6 of them where there are several rows for
    each direction, to about 1e-4 where there are hardly more rows than directions. With no more
    rows than directions (a small `count`) they only do so on average and before the rows are
    brought to unit norm. Moments are taken over the rows in their order: sort them where the last
    bit matters.
    """
    rows = unit(rows)
    return _matched(rows, count or len(rows), generator, unit)


def covariance_matched_pairs(
    rows: Tensor, others: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random unit rows for two tables [m, d] and [m, d2] at once, so that they stay related.

    Row i of both is one draw with the mean and covariance of the unit rows side by side: encoders
    that lie along their decoder rows do so here too. Precision as in `covariance_matched`.
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
    """Draws [size, d] that are normed and then have the table's mean and covariance.

    Norming changes the moments, mapping to the wanted moments changes the norms, so both are done
    in turn. What norming undoes is anticipated by going `LEAP` times as far in every second turn.
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
        found_mean = drawn.mean(dim=0)
        drawn = drawn - found_mean
        found = drawn.T @ drawn / size
        off = (found - covariance).norm() > CLOSE * covariance.norm()
        if not off and (found_mean - mean).norm() <= CLOSE:
            return drawn + found_mean
        inner, _ = _power(root @ found @ root, -0.5)
        towards = root @ inner @ root  # the one symmetric map that gives the wanted covariance
        far = LEAP if turn % 2 else 1
        drawn = drawn @ torch.linalg.matrix_power(towards, far)
        drawn = norm(drawn + mean + (far - 1) * (mean - found_mean))
    return drawn


def _power(matrix: Tensor, exponent: float) -> tuple[Tensor, int]:
    """A power of a symmetric matrix [d, d] on its range, and its rank.

    Unlike a factor it is unique, so rows in another order have the same null.
    """
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > SMALL * values[-1].clamp(min=SMALL)
    powers = torch.where(kept, values.clamp(min=SMALL**2) ** exponent, 0)
    return (vectors * powers) @ vectors.T, int(kept.sum())
