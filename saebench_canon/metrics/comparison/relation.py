"""One dictionary's rows beside another's: what is found, what is a sum, and what chance gives."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saebench_canon.kernels.composition import one_parent, parent_null, planted_sums
from saebench_canon.kernels.cosine import max_cosine, tied
from saebench_canon.kernels.nnomp import Pursuit, pursue
from saebench_canon.kernels.nulls import covariance_matched
from saebench_canon.kernels.random_generators import generator
from saebench_canon.kernels.sum_rule import SLACK, Rule
from saebench_canon.metrics.shared.dictionary import Dictionary
from saebench_canon.metrics.shared.fitted import Fitted, fitted

DRAWN = 1024  # rows of a null, and planted sums, at most
CLUSTERS = (16, 8)  # rows of a cluster, in the nulls whose rows vary a parent
COPIES = 1 / 1.09**2 - SLACK  # of a planted sum, what another seed's noisy copy explains, less it
LOW = 0.05  # the quantile of random rows' residuals that is reported


@dataclass(frozen=True, eq=False)
class Random:
    """Rows that hold no sums, drawn once for a dictionary: of its covariance, and of its clusters.

    At most 1,024 of each.
    """

    covariance: Tensor
    clusters: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Nulls:
    """Fits of rows that can only be sums by chance.

    `parent` are rows of which all but the part along the best atom is drawn anew.
    """

    parent: Fitted
    covariance: Fitted
    clusters: tuple[Fitted, ...]

    def shares(self, rule: Rule) -> dict[str, float]:
        """The share of sums in each null, of the nulls of clusters in that which has most."""
        return {
            "parent": self.parent.share(rule),
            "covariance": self.covariance.share(rule),
            "clusters": max(null.share(rule) for null in self.clusters),
        }


@dataclass(frozen=True, eq=False)
class Relation:
    """The rows of one dictionary in another.

    `least` is what sums have to explain so that at most 5 % of any null's rows are sums, and
    `parent` the share of sums in the parent null at the unraised one. `recall` is the share of
    planted sums of the other's rows that are found at `least`, and `low` the 5th percentile of what
    the other leaves of random rows.
    """

    cosine: Tensor
    nearest: Tensor
    fitted: Fitted
    pursuit: Pursuit
    nulls: Nulls
    least: float
    parent: float
    recall: float
    low: float


def random_rows(dictionary: Dictionary, seed: int) -> Random:
    """Rows without sums of a dictionary's covariance, and of clusters."""
    rows = dictionary.rows
    count = min(len(rows), DRAWN)
    drawn = covariance_matched(rows, generator(seed, "comparison", "covariance"), count=count)
    clusters = []
    for size in CLUSTERS:
        source = generator(seed, "comparison", "clusters", size)
        clusters.append(one_parent(rows, max(1, len(rows) // size), source)[:DRAWN])
    return Random(drawn, tuple(clusters))


def fit_with_parent_null(
    rows: Dictionary, others: Dictionary, rule: Rule, gate: float, seed: int
) -> tuple[Pursuit, Fitted]:
    """The fits of one dictionary's rows by another's, and of their parent null."""
    pursuit = pursue(rows.rows, others.rows, count=rule.atoms)
    source = generator(seed, "comparison", "parent")
    parent = parent_null(rows.rows, others.rows, pursuit, source)[:DRAWN]
    return pursuit, fitted(pursue(parent, others.rows, count=rule.atoms), gate)


def relate(
    rows: Dictionary, others: Dictionary, random: Random, rule: Rule, gate: float, seed: int
) -> Relation:
    """The rows of one dictionary in another; neither is empty."""
    cosine, nearest = max_cosine(rows.rows, others.every)
    pursuit, kept = fit_with_parent_null(rows, others, rule, gate, seed)
    drawn, *varied = (
        fitted(pursue(table, others.rows, count=rule.atoms), gate)
        for table in (random.covariance, *random.clusters)
    )
    raised = rule.raised(null.shares for null in (kept, drawn, *varied))
    planted = 0.0
    if len(others) > rule.atoms:
        sums = planted_sums(others.rows, DRAWN, generator(seed, "comparison", "planted"))
        fit = fitted(pursue(sums, others.rows, count=rule.atoms), gate)
        planted = fit.share(replace(raised, least=max(raised.least, COPIES)))
    return Relation(
        tied(cosine), nearest, fitted(pursuit, gate), pursuit,
        Nulls(kept, drawn, tuple(varied)),
        least=raised.least, parent=kept.share(rule), recall=planted,
        low=float(torch.quantile(drawn.residual, LOW)),
    )  # fmt: skip
