"""Rows fitted by others: what one and all atoms explain, and fits that cancel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saebench_canon.kernels.nnomp import Pursuit
from saebench_canon.kernels.sum_rule import Rule


@dataclass(frozen=True, eq=False)
class Fitted:
    """Rows fitted by others: what the first and all atoms explain [n], and which are gated [n]."""

    first: Tensor
    explained: Tensor
    gated: Tensor

    @property
    def shares(self) -> Tensor:
        """What the first and all atoms explain, where a gated fit explains nothing, [n, 2]."""
        return torch.stack([self.first, torch.where(self.gated, 0.0, self.explained)], dim=1)

    def share(self, rule: Rule) -> float:
        """The share of rows that are sums by a rule."""
        return float(rule.holds(self.shares).double().mean())

    @property
    def residual(self) -> Tensor:
        """The share of each row that is left over; a gated fit counts with its first atom, [n]."""
        return 1 - torch.where(self.gated, self.first, self.explained)


def fitted(pursuit: Pursuit, gate: float) -> Fitted:
    """A pursuit by what its first and all atoms explain, and whether these cancel."""
    weights = pursuit.weights.double()
    explained = pursuit.explained.double()
    return Fitted(explained[:, 0], explained[:, -1], (weights**2).sum(dim=1) > gate)


def fit_columns(fit: Fitted, pursuit: Pursuit, latents: Tensor) -> dict[str, list[Any]]:
    """The columns of a table of fits; `latents` [m] are the numbers of the atoms."""
    used = (pursuit.weights > 0).tolist()
    atoms = latents[pursuit.atoms.clamp(min=0)].tolist()
    return {
        "first": fit.first.tolist(),
        "explained": fit.explained.tolist(),
        "gated": fit.gated.tolist(),
        "atoms": [
            [atom for atom, use in zip(row, uses, strict=True) if use]
            for row, uses in zip(atoms, used, strict=True)
        ],
    }
