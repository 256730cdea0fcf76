"""What other seeds say about a latent: how many have it, and how near theirs is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saebench_canon.kernels.cosine import max_cosine, tied
from saebench_canon.kernels.sum_rule import SLACK
from saebench_canon.metrics.shared.dictionary import Dictionary

NOWHERE = -1.0  # the cosine with a peer that has no live latent


@dataclass(frozen=True, eq=False)
class Twins:
    """The twins of each latent in peers.

    `weight` [n] is the share of the peers that find it. `ceiling` [n] is what a sum must explain to
    be about as near as its twins, 0 where it has none.
    """

    weight: Tensor
    ceiling: Tensor


def twins_in(rows: Dictionary, peers: Sequence[Dictionary], threshold: float) -> Twins:
    """The twins of a dictionary's latents; without peers all count alike, and have no ceiling."""
    if not peers:
        every = torch.ones(len(rows), dtype=torch.float64)
        return Twins(every, torch.zeros_like(every))
    cosines = torch.stack([_cosines(rows, peer) for peer in peers])  # [peers, n]
    found = (cosines >= threshold).double()
    count = found.sum(dim=0)
    square = (cosines**2 * found).sum(dim=0) / count.clamp(min=1)
    return Twins(found.mean(dim=0), torch.where(count > 0, square - SLACK, 0.0))


def _cosines(rows: Dictionary, peer: Dictionary) -> Tensor:
    """Each latent's largest cosine with a live row of a peer [n]."""
    if len(peer) == 0:
        return torch.full((len(rows),), NOWHERE, dtype=torch.float64)
    return tied(max_cosine(rows.rows, peer.every)[0])
