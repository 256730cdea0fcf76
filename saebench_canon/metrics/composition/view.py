"""Two SAEs and the larger one's peers, as they are or centred: which latents are sums?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.composition import variance_explained
from saebench_canon.kernels.sum_rule import ROUNDING, Rule
from saebench_canon.metrics.comparison.relation import (
    Random,
    Relation,
    fit_with_parent_null,
    random_rows,
    relate,
)
from saebench_canon.metrics.composition.settings import Limits
from saebench_canon.metrics.composition.twins import Twins, twins_in
from saebench_canon.metrics.shared.dictionary import Dictionary
from saebench_canon.metrics.shared.fitted import Fitted, fitted
from saebench_canon.metrics.shared.sums import WHOLE, Number, composed, or_undefined
from saebench_canon.plugin.metric import Undefined

UNFOUND = "no latent of the larger SAE is found by a peer"


@dataclass(frozen=True, eq=False)
class View:
    """The dictionaries of a pair, and of the larger SAE's peers."""

    small: Dictionary
    large: Dictionary
    peers: tuple[Dictionary, ...]

    @property
    def silent(self) -> str:
        """Which of the two has no latent; nothing if both have some."""
        return "smaller" if len(self.small) == 0 else "larger" if len(self.large) == 0 else ""

    def centred(self) -> View:
        """Each without the mean of its own rows."""
        peers = tuple(peer.centred() for peer in self.peers)
        return View(self.small.centred(), self.large.centred(), peers)


@dataclass(frozen=True, eq=False)
class Sums:
    """The larger SAE's latents as sums of the smaller's, and the smaller's as sums of the larger's.

    `merging_null` are the fits of the smaller's rows that keep their part along the best atom only.
    `random` are random rows of the larger SAE's covariance, and of its clusters. `rule` is the one
    that chance raised. `composed` [n] are the larger's latents that are sums by it, and about as
    near as their twins.
    """

    composing: Relation
    merging: Fitted
    merging_null: Fitted
    random: Random
    twins: Twins
    rule: Rule
    composed: Tensor

    @property
    def composed_share(self) -> Number:
        """The share of sums among the larger's latents, each counted as often as peers find it."""
        if not self.rule.possible:
            return Undefined(WHOLE)
        weight = self.twins.weight
        if not weight.any():
            return Undefined(UNFOUND)
        return float((weight * self.composed).sum() / weight.sum())


def sums_of(view: View, rule: Rule, limits: Limits, seed: int) -> Sums:
    """The sums of a view in which neither SAE is silent."""
    small, large = view.small, view.large
    random = random_rows(large, seed)
    composing = relate(large, small, random, rule, limits.gate, seed)
    pursuit, merging_null = fit_with_parent_null(small, large, rule, limits.gate, seed)
    twins = twins_in(large, view.peers, limits.threshold)
    raised = replace(rule, least=composing.least)
    shares = composing.fitted.shares
    sums = raised.holds(shares) & (shares[:, -1] > twins.ceiling - ROUNDING)
    merging = fitted(pursuit, limits.gate)
    return Sums(composing, merging, merging_null, random, twins, raised, sums)


def scores(view: View, sums: Sums, rule: Rule) -> dict[str, Number]:
    """The scores of a view; `rule` is the one that chance did not raise."""
    composing = sums.composing
    share, possible = sums.composed_share, sums.rule.possible
    by_chance = composing.nulls.shares(sums.rule)
    nulls = {name: null if possible else Undefined(WHOLE) for name, null in by_chance.items()}
    random = variance_explained(sums.random.covariance, composing.nulls.covariance.explained)
    explained = variance_explained(view.large.rows, composing.fitted.explained)
    alike = "the larger SAE's rows do not vary"
    recall: Number = composing.recall if possible else Undefined(WHOLE)
    if len(view.small) <= rule.atoms:
        recall = Undefined(f"sums are planted of more than {rule.atoms} small latents")
    beside = composed(share, nulls)
    if isinstance(share, Undefined):
        beside["composed_excess"] = share
    return {
        **beside,
        "composed_least": composing.least,
        "merged_share": sums.merging.share(rule),
        "merged_null": sums.merging_null.share(rule),
        "planted_recall": recall,
        "explained_variance": or_undefined(explained, alike),
        "null_covariance": or_undefined(random, alike),
    }


def table(view: View, sums: Sums) -> pd.DataFrame:
    """Each live large latent's atoms with their weights, what they explain, and if it is a sum.

    A duplicate has the lines of the latent that stands for it.
    """
    large, pursuit = view.large, sums.composing.pursuit
    position = {latent: at for at, latent in enumerate(large.latents.tolist())}
    owner = torch.tensor([position[latent] for latent in large.owners.tolist()])
    live, order = torch.nonzero(pursuit.atoms[owner] >= 0, as_tuple=True)
    row = owner[live]
    lines = pd.DataFrame({
        "latent": large.every_latent[live].numpy(),
        "atom": view.small.latents[pursuit.atoms[row, order]].numpy(),
        "weight": pursuit.weights[row, order].double().numpy(),
        "explained": pursuit.explained[row, order].double().numpy(),
        "composed": sums.composed[row].numpy(),
    })  # fmt: skip
    return lines.sort_values("latent", kind="stable", ignore_index=True)
