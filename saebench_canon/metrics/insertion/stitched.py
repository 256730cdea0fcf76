"""An SAE's error with its codes at their best factor, and with latents of another added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.reconstruction import chunks
from saebench_canon.kernels.resampling import documents, ratio
from saebench_canon.metrics.shared.ratios import of_documents
from saebench_canon.metrics.stitching.adding import best_factor, rescaled
from saebench_canon.metrics.stitching.best_scales import insert_at_best_scales
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.metric import Value
from saebench_canon.plugin.sae import CanonicalSAE


@dataclass(frozen=True, eq=False)
class Gains:
    """The relative drop of the error and the number of latents added, means over witnesses.

    `documents` has a line for each document that was scored: the squared error that was there and
    how much of it went.
    """

    value: Value
    count: float
    documents: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Receiver:
    """An SAE that latents are added to: its codes at their best factor, and its error."""

    codes: Codes
    rows: Tensor
    bias: Tensor
    acts: Acts
    index: Tensor
    documents: int
    mse: Value
    exact: bool

    @classmethod
    def of(cls, sae: CanonicalSAE, codes: Codes, acts: Acts) -> Receiver:
        """The SAE with all its codes multiplied by the factor that leaves the least error."""
        index, count = documents(acts.doc)
        sums = torch.zeros(count, 4, dtype=torch.float64)
        rows, bias = sae.W_dec, sae.b_dec
        dtype = torch.promote_types(rows.dtype, torch.float32)
        for part, x, (active,) in chunks(acts.x, codes, title="errors", dtype=dtype):
            target = x - bias.to(dtype)
            added = active.decode(rows.to(dtype))
            columns = [
                torch.ones(len(x), dtype=torch.float64),
                ((target - added).double() ** 2).sum(dim=1),
                (target.double() * added.double()).sum(dim=1),
                (added.double() ** 2).sum(dim=1),
            ]
            sums.index_add_(0, index[part], torch.stack([c.cpu() for c in columns], dim=1))
        tokens, error, fit = sums[:, 0], sums[:, 1], sums[:, 2:]
        least = rescaled(error, fit)
        mse = of_documents(ratio(least, tokens * rows.shape[1]))
        return cls(
            codes, rows * best_factor(fit), bias, acts, index, count, mse,
            exact=float(least.sum()) == 0,
        )  # fmt: skip

    def gains(self, codes: Codes, rows: Tensor, chosen: Sequence[Tensor]) -> Gains:
        """Add latents [of another SAE] by their numbers, one set after the other."""
        known: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}
        for latents in chosen:
            key = tuple(latents.tolist())
            if key not in known:
                known[key] = self._add(codes, rows, latents)
        results = [known[tuple(latents.tolist())] for latents in chosen]
        without, scored = results[0][0], results[0][2]
        removed = torch.stack([before - after for before, after, _ in results]).mean(dim=0)
        of_documents_scored = pd.DataFrame({
            "document": scored.nonzero()[:, 0].tolist(),
            "error": without[scored].tolist(),
            "removed": removed[scored].tolist(),
        })  # fmt: skip
        count = sum(len(latents) for latents in chosen) / len(chosen)
        value = of_documents(ratio(removed[scored], without[scored]))
        return Gains(value, count, of_documents_scored)

    def _add(self, codes: Codes, rows: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mask = torch.zeros(codes.width, dtype=torch.bool)
        mask[latents] = True
        small = (self.codes, self.rows, self.bias)
        result = insert_at_best_scales(
            self.acts.x, self.index, self.documents, small, (codes, rows), mask
        )
        return result.without, result.inserted, result.scored
