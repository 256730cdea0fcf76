"""Fits of meta-SAEs: on which rows, from which start, and kept where they are wanted again."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saebench_canon.kernels.meta_sae import MetaSAE, train
from saebench_canon.kernels.meta_training import Training
from saebench_canon.kernels.seeds import generator
from saebench_canon.metrics.meta_sae.presets import told

Keep = Callable[[Mapping[str, Any], Callable[[], Mapping[str, Tensor]]], Mapping[str, Tensor]]
FIT_VERSION = 2  # of what a kept fit is


def fit(tables: Sequence[Tensor], how: Training, *start: int | str, what: str) -> list[MetaSAE]:
    """A meta-SAE of each table of rows [n, d]; those of one shape share a pass and a start.

    `start` is the seed and the purpose that initial weights and batches are drawn for.
    """
    alike: dict[torch.Size, list[int]] = defaultdict(list)
    for at, table in enumerate(tables):
        alike[table.shape].append(at)
    fits: dict[int, MetaSAE] = {}
    for shape, places in alike.items():
        rows = torch.stack([tables[at].float() for at in places])
        title = f"meta-SAE {how.width} of {shape[0]} {what}"
        draws = generator(int(start[0]), "meta_sae", *start[1:])
        trained = train(rows, how, draws, title=title)
        fits |= {at: trained.one(place) for place, at in enumerate(places)}
    return [fits[at] for at in range(len(tables))]


def whole(rows: Tensor, how: Training, seed: int, keep: Keep | None) -> MetaSAE:
    """The meta-SAE of all rows [m, d], kept where there is a store: decompositions come from it."""

    def make() -> Mapping[str, Tensor]:
        return fit([rows], how, seed, "whole", what="rows, all of them")[0].tensors()

    digest = hashlib.blake2b(rows.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
    key = {"name": "the meta-SAE of all rows", "version": FIT_VERSION, "rows": digest}
    key |= {"training": told(how), "seed": seed}
    return MetaSAE.of(make() if keep is None else keep(key, make))
