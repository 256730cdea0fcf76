"""How the rows of several SAEs use the meta-latents of their common meta-SAE."""

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
from saebench_canon.kernels.random_generators import generator
from saebench_canon.kernels.replace import encoded, quality
from saebench_canon.plugin.metric import Undefined


@dataclass(frozen=True)
class MetaLatentUse:
    """How a ladder of SAEs uses meta-latents; a tuple has one entry for each SAE.

    `meta_l0` is the mean number of meta-latents active on a row. Of the live meta-latents,
    `used_shares` are active on the SAE's rows and `own_shares` on the rows of no other SAE.
    """

    explained_variance: float | Undefined
    shared_share: float | Undefined
    own_share: float | Undefined
    meta_l0: tuple[float, ...]
    explained_variances: tuple[float, ...]
    used_shares: tuple[float, ...]
    own_shares: tuple[float, ...]


def joined(tables: Sequence[Tensor]) -> Tensor:
    """The rows of all SAEs, one SAE after the other."""
    return torch.cat(list(tables))


def random_rows(rows: Tensor, seed: int, member: int) -> Tensor:
    """Random rows with the mean and covariance of one SAE's rows."""
    return covariance_matched(rows, generator(seed, "meta_ladder", member)).float()


def meta_latent_use(tables: Sequence[Tensor], model: MetaSAE) -> MetaLatentUse:
    """How well the meta-SAE of all tables explains each table, and which meta-latents it uses."""
    rows = joined(tables)
    codes = [encoded(model, table) for table in tables]
    explained = quality(model, rows, Codes.concatenate(codes)).explained_variance
    active = torch.stack([table_codes.live for table_codes in codes])  # [SAEs, M]
    live = int(active.any(dim=0).sum())
    users = active.sum(dim=0)  # SAEs that use each meta-latent, [M]
    inactive = Undefined("no meta-latent is active on a row")

    def shares(masks: Tensor) -> tuple[float, ...]:
        return tuple(int(mask.sum()) / live if live else math.nan for mask in masks)

    return MetaLatentUse(
        explained if math.isfinite(explained) else Undefined("the decoder rows do not vary"),
        int((users == len(tables)).sum()) / live if live else inactive,
        int((users == 1).sum()) / live if live else inactive,
        tuple(table_codes.l0 for table_codes in codes),
        tuple(
            quality(model, table, table_codes).explained_variance
            for table, table_codes in zip(tables, codes, strict=True)
        ),
        used_shares=shares(active),
        own_shares=shares(active & (users == 1)),
    )


def widths(
    members: Sequence[int],
    sizes: Sequence[int],
    tables: Sequence[Tensor],
    real: MetaLatentUse,
    null: MetaLatentUse,
) -> pd.DataFrame:
    """One row for each SAE: its position in the group, its width, its live latents, and its use."""
    return pd.DataFrame({
        "member": list(members),
        "width": list(sizes),
        "latents": [len(table) for table in tables],
        "meta_l0": real.meta_l0,
        "meta_l0_null": null.meta_l0,
        "explained_variance": real.explained_variances,
        "explained_variance_null": null.explained_variances,
        "used_share": real.used_shares,
        "own_share": real.own_shares,
    })  # fmt: skip
