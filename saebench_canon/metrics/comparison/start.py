"""Whether two SAEs began from the same rows: latents that meet under the same number."""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import max_cosine, tied
from saebench_canon.metrics.shared.dictionary import Dictionary

SORTED = 0.3  # rank correlation of number and firing, from which latents are sorted by it
BY_COUNT = 3.0  # or this many times 1/√m, what chance gives few latents


def start_of(
    first: Dictionary,
    second: Dictionary,
    codes: tuple[Codes | None, Codes | None],
    threshold: float,
) -> pd.DataFrame:
    """One line: live latents of the smaller SAE, mutual pairs, equal numbers, and order."""
    mutual, same = mutual_pairs(first, second, threshold)
    in_order = all(one is not None and sorted_by_firing(one) for one in codes)
    live = min(len(first.every), len(second.every))
    return pd.DataFrame(
        {"live": [live], "mutual": [mutual], "same_index": [same], "sorted": [in_order]}
    )


def mutual_pairs(first: Dictionary, second: Dictionary, threshold: float) -> tuple[int, int]:
    """How many live latents are each other's nearest, and how many of them share a number.

    Training keeps a latent near where it began, so SAEs of one start meet under equal numbers; of
    others about one pair does, by chance, however wide they are.
    """
    cosine, nearest = max_cosine(first.every, second.every)
    _, back = max_cosine(second.every, first.every)
    mutual = (back[nearest] == torch.arange(len(nearest))) & (tied(cosine) >= threshold)
    same = mutual & (second.every_latent[nearest] == first.every_latent)
    return int(mutual.sum()), int(same.sum())


def sorted_by_firing(codes: Codes) -> bool:
    """Whether live latents are numbered by how often they fire, as Matryoshka SAEs may be."""
    live = codes.live.cpu()
    counts = codes.counts.cpu().double()[live]
    if len(counts) < 2 or float(counts.max()) == float(counts.min()):
        return False
    number = torch.arange(len(counts), dtype=torch.float64)
    rank = _ranks(counts)
    number, rank = number - number.mean(), rank - rank.mean()
    rho = float((number @ rank) / (number.norm() * rank.norm()))
    return abs(rho) > max(SORTED, BY_COUNT / math.sqrt(len(counts)))


def _ranks(values: Tensor) -> Tensor:
    """Ranks, ties at their mean."""
    _, where, count = torch.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    ranks: Tensor = (last - (count.double() - 1) / 2)[where]
    return ranks
