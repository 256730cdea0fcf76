"""A dictionary beside the features of a world: cosines, sums and firing, each computed once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.metrics.truth import firing as fires
from saebench_canon.metrics.truth.rows import Rows, Rule, compare, without_common
from saebench_canon.plugin.world import TrueFeatures


@dataclass(frozen=True, eq=False)
class Comparison:
    """Latents beside features: rows as they are and centred (None if nothing is left), and firing.

    `f1`, `split` and `absorbed` are [F]: the best F1 of a latent, and what became of the feature.
    """

    features: TrueFeatures
    rows: Rows
    centred: Rows | None
    f1: Tensor
    split: Tensor
    absorbed: Tensor

    @property
    def sums(self) -> Tensor:
        """The features that are part of a latent which is a sum, [F] bool."""
        parts = self.rows.parts[self.rows.sums].flatten()
        mask = torch.zeros(len(self.f1), dtype=torch.bool)
        mask[parts[parts >= 0]] = True
        return mask

    @property
    def parents(self) -> Tensor:
        """The features without which others do not fire."""
        parents = self.features.parents
        return torch.tensor(sorted(set(parents[parents >= 0].tolist())), dtype=torch.int64)


def beside(features: TrueFeatures, latents: Tensor, codes: Codes, rule: Rule) -> Comparison:
    """Compare rows [m, d] and their codes of the same tokens with the features."""
    true = features.rows.double()
    rows = compare(true, latents, rule)
    without = without_common(true, latents)
    centred: Rows | None = rows
    if without is not None:
        centred = compare(*without, rule) if len(without[1]) else None
    fired = fires.firing(features.codes, codes)
    split = fires.split(rows.cosines, features.codes, codes, fired, rule.near)
    absorbed = fires.absorbed(rows.cosines, features.codes, codes, features.parents, rule.near)
    return Comparison(features, rows, centred, fired.f1.amax(dim=1), split, absorbed)
