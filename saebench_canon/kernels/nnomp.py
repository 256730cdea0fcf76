"""Non-negative orthogonal matching pursuit of many rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from saebench_canon.kernels.cosine import unit
from saebench_canon.progress import track

BLOCK = 2**23  # correlations in memory at once
SILENT = 1e-6  # a residual whose best cosine is no more than this is orthogonal to every atom
SINGULAR = 1e-9  # atoms whose Gram determinant is no more than this are linearly dependent


@dataclass(frozen=True, eq=False)
class Pursuit:
    """The fit of each of b rows by up to s atoms.

    `atoms` [b, s] int64 in the order chosen, −1 where it stopped; `weights` [b, s] ≥ 0 for unit
    atoms and unit rows; `explained` [b, s] the share of the row's square after each atom.
    """

    atoms: Tensor
    weights: Tensor
    explained: Tensor

    @property
    def residual(self) -> Tensor:
        """The share of each row's square that is left, [b]."""
        return 1 - self.explained[:, -1]


def pursue(
    rows: Tensor,
    atoms: Tensor,
    *,
    count: int = 4,
    without: Tensor | None = None,
    block: int = BLOCK,
) -> Pursuit:
    """Fit each row by at most `count` atoms with weights ≥ 0, taking the best-correlated next.

    `rows` [b, d], `atoms` [a, d], of any norms. After each choice the weights of all chosen atoms
    are fitted anew by non-negative least squares. The search runs in the rows' dtype, the fit in
    float64. A row stops when no atom has a positive cosine with what is left of it. `without` [b]
    is an atom that each row is not fitted by, as where rows are fitted by one another.
    """
    dictionary = unit(atoms)
    search = dictionary.to(rows.dtype)
    height = max(1, block // len(atoms))
    blocks = torch.split(rows, height)
    banned = [None] * len(blocks) if without is None else torch.split(without[:, None], height)
    parts = [
        _pursue(unit(part), dictionary, search, ban, min(count, len(atoms)), count)
        for part, ban in track(
            list(zip(blocks, banned, strict=True)), "fitting rows by other rows", len(blocks)
        )
    ]
    return Pursuit(
        torch.cat([part.atoms for part in parts]),
        torch.cat([part.weights for part in parts]),
        torch.cat([part.explained for part in parts]),
    )


def _pursue(
    rows: Tensor,
    dictionary: Tensor,
    search: Tensor,
    banned: Tensor | None,
    steps: int,
    count: int,
) -> Pursuit:
    b, d = rows.shape
    chosen = torch.full((b, count), -1, dtype=torch.int64, device=rows.device)
    weights = rows.new_zeros(b, count)
    explained = rows.new_zeros(b, count)
    picked = rows.new_zeros(b, count, d)
    residual = rows.clone()
    going = torch.arange(b, device=rows.device)  # rows that have not stopped
    for step in range(steps):
        cosines = residual[going].to(search.dtype) @ search.T
        if banned is not None:
            cosines.scatter_(1, banned[going], -torch.inf)
        if step:
            before = chosen[going, :step]
            cosines.scatter_(1, before, -torch.inf)
        best, atom = cosines.max(dim=1)
        size = residual[going].norm(dim=1)
        moves = best.double() > SILENT * size.clamp(min=SILENT)
        moves &= size > SILENT
        going, atom = going[moves], atom[moves]
        if len(going) == 0:
            explained[:, step:] = explained[:, step - 1 : step] if step else 0
            return Pursuit(chosen, weights, explained)
        chosen[going, step] = atom
        picked[going, step] = dictionary[atom]
        fitted, share = (
            _refit(
                rows[going],
                picked[going, : step + 1],
                weights[going, : step + 1],
                explained[going, step - 1],
            )
            if step
            else _first(rows[going], picked[going, 0])
        )
        weights[going, : step + 1] = fitted
        if step:
            explained[:, step] = explained[:, step - 1]
        explained[going, step] = share
        residual[going] = rows[going] - torch.einsum(
            "bs,bsd->bd", fitted, picked[going, : step + 1]
        )
    explained[:, steps:] = explained[:, steps - 1 : steps]
    return Pursuit(chosen, weights, explained)


def _first(rows: Tensor, atom: Tensor) -> tuple[Tensor, Tensor]:
    weight = (rows * atom).sum(dim=1)
    return weight[:, None], weight**2


def _refit(
    rows: Tensor, atoms: Tensor, weights: Tensor, explained: Tensor
) -> tuple[Tensor, Tensor]:
    """Non-negative least squares on s atoms [b, s, d], the last of them new.

    The optimum is the least-squares fit on some linearly independent subset; those without the new
    atom were tried before and are in `weights` and `explained`, so 2^(s−1) subsets are left.
    """
    size = atoms.shape[1]
    gram = atoms @ atoms.transpose(1, 2)  # [b, s, s]
    target = torch.einsum("bsd,bd->bs", atoms, rows)
    best, share = weights.clone(), explained.clone()
    for others in range(size):
        for subset in combinations(range(size - 1), others):
            index = torch.tensor([*subset, size - 1], device=rows.device)
            part = gram[:, index[:, None], index]
            factor, failed = torch.linalg.cholesky_ex(part)
            sound = (failed == 0) & (factor.diagonal(dim1=1, dim2=2).prod(dim=1) ** 2 > SINGULAR)
            factor = torch.where(
                sound[:, None, None],
                factor,
                torch.eye(len(index), dtype=part.dtype, device=part.device),
            )
            goal = target[:, index]
            fitted = torch.cholesky_solve(goal[..., None], factor)[..., 0]
            gain = (fitted * goal).sum(dim=1)
            better = sound & (fitted >= 0).all(dim=1) & (gain > share)
            share = torch.where(better, gain, share)
            candidate = torch.zeros_like(best)
            candidate[:, index] = fitted
            best = torch.where(better[:, None], candidate, best)
    return best, share
