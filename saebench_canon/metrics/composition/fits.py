"""Fits by a smaller SAE's rows: of a larger SAE's rows, of random rows, and of planted sums."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.composition import (
    one_parent,
    planted_sums,
    pursue_with_null,
    variance_explained,
)
from saebench_canon.kernels.nnomp import Pursuit, pursue
from saebench_canon.kernels.nulls import covariance_matched
from saebench_canon.kernels.random_generators import generator
from saebench_canon.kernels.sum_rule import Rule
from saebench_canon.metrics.shared.live_rows import Rows
from saebench_canon.metrics.shared.sums import WHOLE, Number, composed, largest, or_undefined
from saebench_canon.plugin.metric import Undefined

PLANTED = 1024  # planted sums, and rows of a null, at most
PURPOSES = ("parent", "covariance", "planted", "clusters")
CLUSTERED = 4096  # rows of a dictionary of clusters that are fitted, at most
PARENTS = (16, 8)  # rows for each parent of the dictionaries of clusters
TOO_FEW = f"fewer than {min(PARENTS)} large latents are live"
FEWEST = 3  # small rows needed to plant sums


@dataclass(frozen=True, eq=False)
class Fits:
    """Fits by small rows: of large rows, of each null's rows, and of planted sums if there are any.

    `random` [n, d] are the rows of the covariance's null.
    """

    rows: Pursuit
    parent: Pursuit
    covariance: Pursuit
    clusters: tuple[Pursuit, ...]
    planted: Pursuit | None
    random: Tensor

    @property
    def nulls(self) -> tuple[Pursuit, ...]:
        """The fits of rows that can only be sums by chance."""
        return self.parent, self.covariance, *self.clusters


def fit(above: Tensor, below: Tensor, atoms: int, seed: int) -> Fits:
    """Fit rows [m1, d], their nulls, and planted sums, by up to `atoms` of the rows [m0, d]."""
    draws = {name: generator(seed, "composition", name) for name in PURPOSES}
    rows, parent = pursue_with_null(above, below, atoms, draws["parent"])
    random = covariance_matched(above, draws["covariance"], count=min(len(above), PLANTED))
    some = torch.randperm(len(above), generator=draws["clusters"])[:CLUSTERED]
    counts = [len(above) // size for size in PARENTS if len(above) >= size]
    varied = [one_parent(above, count, draws["clusters"])[some].float() for count in counts]
    planted = None
    if len(below) >= FEWEST:
        planted = pursue(planted_sums(below, PLANTED, draws["planted"]).float(), below, count=atoms)
    return Fits(
        rows=rows,
        parent=parent,
        covariance=pursue(random.float(), below, count=atoms),
        clusters=tuple(pursue(table, below, count=atoms) for table in varied),
        planted=planted,
        random=random,
    )


def scores(fits: Fits, above: Tensor, rule: Rule) -> dict[str, Number]:
    """The scores by the raised rule; `above` [m1, d] are the large rows."""

    def share(fitted: Pursuit) -> Number:
        if not rule.possible:
            return Undefined(WHOLE)
        return float(rule.holds(fitted.explained).double().mean())

    def explained(rows: Tensor, fitted: Pursuit) -> Number:
        value = variance_explained(rows, fitted)
        return or_undefined(value, "the larger SAE's rows do not vary")

    by_chance = {
        "parent": share(fits.parent),
        "covariance": share(fits.covariance),
        "clusters": largest([share(fitted) for fitted in fits.clusters], TOO_FEW),
    }
    few = Undefined(f"fewer than {FEWEST} small latents are live")
    return {
        **composed(share(fits.rows), by_chance),
        "composed_least": rule.least,
        "planted_recall": few if fits.planted is None else share(fits.planted),
        "explained_variance": explained(above, fits.rows),
        "null_covariance": explained(fits.random, fits.covariance),
    }


def sums(fitted: Pursuit, above: Rows, below: Rows, rule: Rule) -> pd.DataFrame:
    """Each large latent's atoms with their weights, what they explain, and whether it is a sum."""
    rows, order = torch.nonzero(fitted.atoms >= 0, as_tuple=True)
    table = pd.DataFrame({
        "latent": above.latents[rows].numpy(),
        "atom": below.latents[fitted.atoms[rows, order]].numpy(),
        "weight": fitted.weights[rows, order].double().numpy(),
        "explained": fitted.explained[rows, order].double().numpy(),
        "composed": rule.holds(fitted.explained)[rows].numpy(),
    })  # fmt: skip
    return table.sort_values("latent", kind="stable", ignore_index=True)
