"""When a row is a sum of atoms and no variant of one, and what chance alone would make of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from saebench_canon.kernels.cosine import max_cosine, unit
from saebench_canon.kernels.nnomp import Pursuit, pursue

PARTS = (2, 3)  # atoms of a planted sum
WEIGHTS = (0.75, 1.25)  # between which each of them is drawn
NOISE = 0.3  # of a planted sum, in parts of its length
TURNS = 25  # of k-means at most
SAME = 1e-12  # of their squares that rows may vary by and be alike
ALL = 1 - 1e-9  # a null from which no share can stand out


def parent_null(rows: Tensor, atoms: Tensor, found: Pursuit, generator: torch.Generator) -> Tensor:
    """Rows with their part along their best atom, and a random rest (ours).

    The rest [b, d] has the length of the row's own, the covariance of all rows' rests, and is
    orthogonal to the atom. `found` is what pursuit found of the rows [b, d] among the atoms [a, d];
    a row without a first atom keeps nothing.
    """
    rows, table = unit(rows), unit(atoms)
    parents = table[found.atoms[:, 0].clamp(min=0)]
    parents = torch.where(found.atoms[:, :1] < 0, 0, parents)
    return _rest_redrawn(rows, parents, generator)


def one_parent(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """A dictionary of the rows' clusters without sums: each row a variant of one parent (ours).

    The rows [m, d] are clustered about `count` directions; each keeps its part along its own, and
    the rest is drawn as in `parent_null`. Returns unit rows [m, d] float64.
    """
    rows = unit(rows)
    parents, own = k_means(rows, count, generator)
    return unit(_rest_redrawn(rows, parents[own], generator))


def _rest_redrawn(rows: Tensor, parents: Tensor, generator: torch.Generator) -> Tensor:
    """The rows with another rest beside what lies along their parents."""
    along = (rows * parents).sum(dim=1, keepdim=True) * parents
    rest = rows - along
    values, vectors = torch.linalg.eigh(rest.T @ rest / max(1, len(rest)))
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    drawn = torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows.device) @ root
    drawn = drawn - (drawn * parents).sum(dim=1, keepdim=True) * parents
    redrawn: Tensor = along + rest.norm(dim=1, keepdim=True) * unit(drawn)
    return redrawn


def k_means(rows: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Directions that rows cluster about (spherical k-means), and each row's.

    `rows` [m, d] of any norms; returns unit directions [count, d] float64 and numbers [m] int64.
    It starts from rows drawn at random; a direction that no row is nearest to stays where it is.
    """
    rows = unit(rows)
    start = torch.randperm(len(rows), generator=generator)[:count].to(rows.device)
    centres = rows[start]
    own = torch.full((len(rows),), -1, device=rows.device)
    for _ in range(TURNS):
        _, nearest = max_cosine(rows, centres)
        if torch.equal(nearest, own):
            break
        own = nearest
        sums = torch.zeros_like(centres).index_add_(0, own, rows)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, unit(sums), centres)
    return centres, own


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
    """The share of rows that are sums beyond chance; nan where chance makes sums of all.

    With a share c of true sums and chance making sums of the rest at the null's rate, the share
    seen is c + (1 − c) null.
    """
    return math.nan if null >= ALL else (share - null) / (1 - null)


def variance_explained(rows: Tensor, found: Pursuit) -> float:
    """1 − Σ‖w − ŵ‖² / Σ‖w − w̄‖² of unit rows that pursuit fitted; nan if they do not vary."""
    spread = float(((unit(rows) - unit(rows).mean(dim=0)) ** 2).sum())
    left = float(found.residual.double().sum())
    return math.nan if spread <= SAME * len(rows) else 1 - left / spread


def explained_beside_null(
    rows: Tensor, atoms: Tensor, count: int, generator: torch.Generator
) -> tuple[Pursuit, Pursuit]:
    """What up to `count` atoms [a, d] explain of the rows [b, d], and of their parent null."""
    found = pursue(unit(rows).to(rows.dtype), atoms, count=count)
    null = parent_null(rows, atoms, found, generator).to(rows.dtype)
    return found, pursue(null, atoms, count=count)
