"""The live decoder rows of an SAE, in an order and a precision that permuting and scaling keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import unit
from saebench_canon.plugin.sae import CanonicalSAE

DECIMALS = 6  # of unit rows; scaling a float32 row changes the eighth


@dataclass(frozen=True, eq=False)
class Rows:
    """The live decoder rows [m, d] at unit norm, float32, and their latents' numbers [m].

    They stand in lexicographic order, so that a permuted decoder gives the same rows, and are
    rounded, so that a scaled one gives nearly all of their numbers to the last bit (scales that are
    powers of two: all). What is trained on others may differ as it does between two seeds.
    """

    rows: Tensor
    latents: Tensor

    def __len__(self) -> int:
        return len(self.latents)


def live_rows(sae: CanonicalSAE, codes: Codes | None) -> Rows:
    """The rows that count; without codes every latent is live."""
    latents = torch.arange(sae.width) if codes is None else codes.live.cpu().nonzero()[:, 0]
    rows = unit(sae.W_dec.cpu()[latents]).round(decimals=DECIMALS) + 0.0  # there is one zero
    rows = rows.float()
    order = torch.from_numpy(np.lexsort(rows.numpy().T[::-1]))
    return Rows(rows[order], latents[order])
