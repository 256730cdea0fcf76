"""Which latents are live, and their rows, sorted and rounded to hide permuting and scaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import unit
from saebench_canon.plugin.sae import CanonicalSAE

DECIMALS = 6  # of unit rows; scaling a float32 row changes the eighth one


@dataclass(frozen=True, eq=False)
class Rows:
    """The live decoder rows [m, d] at unit norm, float32, and their latents' numbers [m].

    They are sorted lexicographically, so that a permuted decoder gives the same rows. They are
    rounded, so that a scaled decoder gives nearly all numbers to the last bit (all of them when the
    scales are powers of two). A model trained on rows that differ may differ as between two seeds.
    """

    rows: Tensor
    latents: Tensor

    def __len__(self) -> int:
        return len(self.latents)


def live_latents(sae: CanonicalSAE, codes: Codes | None) -> Tensor:
    """Which latents are live, [m] bool; without codes, all whose decoder row is not 0."""
    live = sae.W_dec.any(dim=1) if codes is None else codes.live
    return live.to(sae.W_dec.device)


def live_rows(sae: CanonicalSAE, codes: Codes | None) -> Rows:
    """The live rows of an SAE; without codes every latent with a decoder row counts as live."""
    latents = live_latents(sae, codes).cpu().nonzero()[:, 0]
    rows = unit(sae.W_dec.cpu()[latents]).round(decimals=DECIMALS) + 0.0  # turns -0.0 into 0.0
    rows = rows.float()
    order = torch.from_numpy(np.lexsort(rows.numpy().T[::-1]))
    return Rows(rows[order], latents[order])
