"""What `meta_ladder` reads off the meta-SAE of several SAEs' rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.meta_sae import MetaSAE
from saebench_canon.kernels.nulls import covariance_matched
from saebench_canon.kernels.replace import encoded, quality
from saebench_canon.kernels.seeds import generator
from saebench_canon.plugin.metric import Undefined


@dataclass(frozen=True)
class Look:
    """Explained variance and shares of live meta-latents, and of each SAE what the table has.

    `meta_l0` is the mean number of meta-latents of a row, `used` the share of live meta-latents
    that are active on its rows, `alone` of those that are active on its rows alone.
    """

    explained: float | Undefined
    shared: float | Undefined
    own: float | Undefined
    meta_l0: tuple[float, ...]
    explained_of: tuple[float, ...]
    used: tuple[float, ...]
    alone: tuple[float, ...]


def joined(tables: Sequence[Tensor]) -> Tensor:
    """The rows of all SAEs, one SAE after the other."""
    return torch.cat(list(tables))


def random(rows: Tensor, seed: int, member: int) -> Tensor:
    """Random rows with the mean and covariance of one SAE's."""
    return covariance_matched(rows, generator(seed, "meta_ladder", member)).float()


def look(tables: Sequence[Tensor], model: MetaSAE) -> Look:
    """How the meta-SAE of all tables explains each of them, and which meta-latents each uses."""
    rows = joined(tables)
    own = [encoded(model, table) for table in tables]
    explained = quality(model, rows, Codes.concatenate(own)).explained_variance
    active = torch.stack([each.live for each in own])  # [SAEs, M]
    count = int(active.any(dim=0).sum())
    by = active.sum(dim=0)
    none = Undefined("no meta-latent is active on a row")
    return Look(
        explained if math.isfinite(explained) else Undefined("the decoder rows do not vary"),
        int((by == len(tables)).sum()) / count if count else none,
        int((by == 1).sum()) / count if count else none,
        tuple(each.l0 for each in own),
        tuple(
            quality(model, table, each).explained_variance
            for table, each in zip(tables, own, strict=True)
        ),
        tuple(int(each.sum()) / count if count else math.nan for each in active),
        tuple(int((each & (by == 1)).sum()) / count if count else math.nan for each in active),
    )


def widths(
    members: Sequence[int],
    sizes: Sequence[int],
    tables: Sequence[Tensor],
    found: Look,
    null: Look,
) -> pd.DataFrame:
    """One row an SAE: its place in the group, its width, its live rows."""
    return pd.DataFrame({
        "member": list(members),
        "width": list(sizes),
        "latents": [len(table) for table in tables],
        "meta_l0": found.meta_l0,
        "meta_l0_null": null.meta_l0,
        "explained_variance": found.explained_of,
        "explained_variance_null": null.explained_of,
        "used_share": found.used,
        "own_share": found.alone,
    })  # fmt: skip
