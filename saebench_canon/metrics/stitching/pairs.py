"""The two SAEs of a case: live latents, rows, and codes of the same activations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.resampling import documents
from saebench_canon.metrics.shared.live_rows import live_latents
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.sae import CanonicalSAE


@dataclass(frozen=True, eq=False)
class Pair:
    """Both SAEs on one device, which of their latents are live [m] bool, and the live rows."""

    small: CanonicalSAE
    large: CanonicalSAE
    live0: Tensor
    live1: Tensor
    rows0: Tensor
    rows1: Tensor


def pair_of(
    small: CanonicalSAE, large: CanonicalSAE, codes0: Codes | None, codes1: Codes | None
) -> Pair:
    """The pair; without codes every latent with a decoder row counts as live."""
    device = small.W_dec.device
    live0, live1 = (
        live_latents(sae, codes).to(device) for sae, codes in ((small, codes0), (large, codes1))
    )
    return Pair(small, large, live0, live1, small.W_dec[live0], large.W_dec[live1])


@dataclass(frozen=True, eq=False)
class CodedPair:
    """A pair with both SAEs' codes of the same activations."""

    pair: Pair
    codes0: Codes
    codes1: Codes
    acts: Acts

    @cached_property
    def index(self) -> tuple[Tensor, int]:
        """Each token's document and their number."""
        return documents(self.acts.doc)

    @property
    def small(self) -> tuple[Codes, Tensor, Tensor]:
        """The small SAE's codes, decoder rows and bias."""
        return self.codes0, self.pair.small.W_dec, self.pair.small.b_dec

    @property
    def large(self) -> tuple[Codes, Tensor, Tensor]:
        """The large SAE's codes, decoder rows and bias."""
        return self.codes1, self.pair.large.W_dec, self.pair.large.b_dec

    def on_all_latents(self, live: Tensor) -> Tensor:
        """A mask over live large latents, extended to all of them, [m1] bool."""
        mask = torch.zeros_like(self.pair.live1)
        mask[self.pair.live1] = live.to(mask.device)
        return mask
