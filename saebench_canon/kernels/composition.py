"""Which rows are sums of atoms and not variants of one, and rows without sums to compare with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from saebench_canon.kernels.cosine import max_cosine, unit
from saebench_canon.kernels.nnomp import Pursuit, pursue

PARTS = (2, 3)  # atoms of a planted sum
WEIGHTS = (0.75, 1.25)  # the range that each atom's weight is drawn from
NOISE = 0.3  # of a planted sum, as a part of its length
TURNS = 25  # iterations of k-means, at most
SAME = 1e-12  # variance, as a share of their squares, up to which rows count as alike
ALL = 1 - 1e-9  # a null that no share can exceed


def parent_null(rows: Tensor, atoms: Tensor, fitted: Pursuit, generator: torch.Generator) -> Tensor:
    """Rows that keep their part along their best atom and get a random rest (ours).

    The new rest [b, d] is as long as the old one, has the covariance of all rows' rests, and is
    orthogonal to the atom. `fitted` is the pursuit of the rows [b, d] among the atoms [a, d]; a row
    without a first atom keeps nothing.
    """
    rows, table = unit(rows), unit(atoms)
    parents = table[fitted.atoms[:, 0].clamp(min=0)]
    parents = torch.where(fitted.atoms[:, :1] < 0, 0, parents)
    return _rest_redrawn(rows, parents, generator)


def one_parent(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """A dictionary without sums but with the rows' clusters: each row varies one parent (ours).

    The rows [m, d] are clustered about `count` directions. Each keeps its part along its cluster's
    direction, and the rest is drawn as in `parent_null`. Returns unit rows [m, d] float64.
    """
    rows = unit(rows)
    parents, nearest = k_means(rows, count, generator)
    return unit(_rest_redrawn(rows, parents[nearest], generator))


def _rest_redrawn(rows: Tensor, parents: Tensor, generator: torch.Generator) -> Tensor:
    """The rows with their part along their parents unchanged and the rest drawn anew."""
    along = (rows * parents).sum(dim=1, keepdim=True) * parents
    rest = rows - along
    values, vectors = torch.linalg.eigh(rest.T @ rest / max(1, len(rest)))
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    drawn = torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows.device) @ root
    drawn = drawn - (drawn * parents).sum(dim=1, keepdim=True) * parents
    redrawn: Tensor = along + rest.norm(dim=1, keepdim=True) * unit(drawn)
    return redrawn


def k_means(rows: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Directions that rows cluster about (spherical k-means), and each row's cluster.

    `rows` [m, d] of any norms; returns unit directions [count, d] float64 and the number of each
    row's direction [m] int64. It starts from rows drawn at random; a direction that is nearest to
    no row does not change.
    """
    rows = unit(rows)
    start = torch.randperm(len(rows), generator=generator)[:count].to(rows.device)
    centres = rows[start]
    cluster = torch.full((len(rows),), -1, device=rows.device)
    for _ in range(TURNS):
        _, nearest = max_cosine(rows, centres)
        if torch.equal(nearest, cluster):
            break
        cluster = nearest
        sums = torch.zeros_like(centres).index_add_(0, cluster, rows)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, unit(sums), centres)
    return centres, cluster


def planted_sums(atoms: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Noisy sums of two or three atoms [a, d] each, unit rows [count, d] float64; a ≥ 3."""
    table = unit(atoms)
    draws = torch.rand(count, len(table), generator=generator, dtype=torch.float64)
    picked = draws.argsort(dim=1)[:, : max(PARTS)].to(table.device)
    low, high = WEIGHTS
    weights = torch.rand(count, max(PARTS), generator=generator, dtype=torch.float64)
    weights = low + (high - low) * weights
    pairs = torch.rand(count, generator=generator, dtype=torch.float64) < 1 / len(PARTS)
    weights[pairs, min(PARTS) :] = 0
    sums = unit(torch.einsum("ns,nsd->nd", weights.to(table.device), table[picked]))
    noise = torch.randn(sums.shape, generator=generator, dtype=torch.float64).to(table.device)
    return unit(sums + NOISE * noise / math.sqrt(table.shape[1]))


def excess(share: float, null: float) -> float:
    """The share of rows that are sums beyond chance; nan where every row is a sum by chance.

    With a share c of true sums, and the rest being sums by chance at the null's rate, the observed
    share is c + (1 − c) null.
    """
    return math.nan if null >= ALL else (share - null) / (1 - null)


def variance_explained(rows: Tensor, explained: Tensor) -> float:
    """1 − Σ‖w − ŵ‖² / Σ‖w − w̄‖² of rows [m, d] at unit norm; nan if they do not vary.

    `explained` [m] is the share of each row's square that its fit explains.
    """
    spread = float(((unit(rows) - unit(rows).mean(dim=0)) ** 2).sum())
    residual = float((1 - explained.double()).sum())
    return math.nan if spread <= SAME * len(rows) else 1 - residual / spread


def pursue_with_null(
    rows: Tensor, atoms: Tensor, count: int, generator: torch.Generator
) -> tuple[Pursuit, Pursuit]:
    """The pursuit of rows [b, d], and of their parent null, by up to `count` atoms [a, d]."""
    fitted = pursue(unit(rows).to(rows.dtype), atoms, count=count)
    null = parent_null(rows, atoms, fitted, generator).to(rows.dtype)
    return fitted, pursue(null, atoms, count=count)
