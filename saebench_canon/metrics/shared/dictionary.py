"""The rows of an SAE by which it is compared: live, without duplicates, and centred."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.common_direction import KEEPS, shares_direction
from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.duplicates import representatives
from saebench_canon.metrics.shared.live_rows import live_rows
from saebench_canon.plugin.sae import CanonicalSAE


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Representatives [n, d] and all live rows [m, d], each with its latent's number."""

    rows: Tensor
    latents: Tensor  # [n]
    every: Tensor
    every_latent: Tensor  # [m]
    owners: Tensor  # [m] the latent that stands for it, itself if it is no duplicate

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def duplicates(self) -> int:
        """How many live latents are duplicates of another."""
        return len(self.every) - len(self.rows)

    @property
    def shares_direction(self) -> bool:
        """Whether the representatives share a direction."""
        return shares_direction(self.rows)

    @property
    def mean_norm(self) -> float:
        """The length of the mean of the representatives."""
        return float(unit(self.rows).mean(dim=0).norm())

    def centred(self) -> Dictionary:
        """Without the mean of the representatives, at unit norm; rows that were it drop out."""
        mean = unit(self.rows).mean(dim=0)
        rows, left = _less(self.rows, mean)
        every, kept = _less(self.every, mean)
        return Dictionary(
            rows, self.latents[left], every, self.every_latent[kept], self.owners[kept]
        )

    def merged(self, codes: Codes) -> Codes:
        """The SAE's codes with those of duplicates on the latent that stands for them.

        A token may then name a latent twice; such codes add up.
        """
        owner = torch.arange(codes.width, device=codes.indices.device)
        owner[self.every_latent.to(owner.device)] = self.owners.to(owner.device)
        return replace(codes, indices=owner[codes.indices.long()].to(codes.indices.dtype))


def _less(rows: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """The unit rows less a mean, at unit norm again, without those that keep next to nothing."""
    apart = unit(rows) - mean
    left = apart.norm(dim=1) >= KEEPS
    return unit(apart[left]), left


def dictionary_of(sae: CanonicalSAE, codes: Codes | None) -> Dictionary:
    """An SAE's live latents; of duplicates the one with the most firing energy stands for all.

    Without codes every latent with a decoder row counts as live, and rows are taken in
    lexicographic order.
    """
    live = live_rows(sae, codes)
    order = torch.arange(len(live))
    if codes is not None:
        order = _energy(codes)[live.latents].argsort(descending=True, stable=True)
    owner = representatives(live.rows, order)
    chosen = owner == torch.arange(len(owner))
    rows = live.rows.double()
    return Dictionary(rows[chosen], live.latents[chosen], rows, live.latents, live.latents[owner])


def _energy(codes: Codes) -> Tensor:
    """The sum of each latent's squared codes, [width] float64."""
    codes = codes.to("cpu")
    energy = torch.zeros(codes.width, dtype=torch.float64)
    return energy.index_add_(0, codes.indices.long(), codes.values.double() ** 2)
