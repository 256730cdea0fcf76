"""Fits of meta-SAEs: on which rows, from which start, and which are kept in the store."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saebench_canon.kernels.meta_sae import MetaSAE, train
from saebench_canon.kernels.meta_training import Training
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.meta_sae.presets import training_key

Keep = Callable[[Mapping[str, Any], Callable[[], Mapping[str, Tensor]]], Mapping[str, Tensor]]
FIT_VERSION = 2  # raised when kept fits change


def fit(
    tables: Sequence[Tensor], training: Training, *start: int | str, title: str
) -> list[MetaSAE]:
    """A meta-SAE of each table of rows [n, d]; tables of one shape are fitted together.

    They then have the same initial weights. `start` is the seed and the purpose for which initial
    weights and batches are drawn.
    """
    by_shape: dict[torch.Size, list[int]] = defaultdict(list)
    for index, table in enumerate(tables):
        by_shape[table.shape].append(index)
    fits: dict[int, MetaSAE] = {}
    for shape, indices in by_shape.items():
        rows = torch.stack([tables[index].float() for index in indices])
        trained = train(
            rows,
            training,
            generator(int(start[0]), "meta_sae", *start[1:]),
            title=f"meta-SAE {training.width} of {shape[0]} {title}",
        )
        fits |= {index: trained.one(position) for position, index in enumerate(indices)}
    return [fits[index] for index in range(len(tables))]


def fit_all_rows(rows: Tensor, training: Training, seed: int, keep: Keep | None) -> MetaSAE:
    """The meta-SAE of all rows [m, d], for decompositions; with a store, the fit is kept there."""

    def make() -> Mapping[str, Tensor]:
        return fit([rows], training, seed, "whole", title="rows, all of them")[0].tensors()

    digest = hashlib.blake2b(rows.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
    key = {"name": "the meta-SAE of all rows", "version": FIT_VERSION, "rows": digest}
    key |= {"training": training_key(training), "seed": seed}
    return MetaSAE.of(make() if keep is None else keep(key, make))
