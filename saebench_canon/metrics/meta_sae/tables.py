"""The meta-latents of each latent, and how much simpler models of the rows explain."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.composition import k_means
from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.meta_sae import MetaSAE
from saebench_canon.kernels.meta_training import Training
from saebench_canon.kernels.nnomp import pursue
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.shared.live_rows import Rows
from saebench_canon.metrics.shared.sums import or_undefined
from saebench_canon.plugin.metric import Undefined

HEIGHT = 4096  # rows whose dense codes are in memory at once
ALIKE = 1e-12  # relative variance up to which all rows count as equal


def decomposition(live: Rows, model: MetaSAE) -> dict[str, pd.DataFrame]:
    """The meta-latents of each latent with their weights, and how often each meta-latent is used.

    The table `latents` has the share of each row, centred on the mean row, that they explain.
    """
    parts = []
    unexplained = torch.empty(len(live), dtype=torch.float64)
    mean = live.rows.double().mean(dim=0)
    for start in range(0, len(live), HEIGHT):
        rows = live.rows[start : start + HEIGHT]
        codes = model.encode(rows[None])
        error = rows.double() - model.decode(codes)[0].double()
        spread = (rows.double() - mean).square().sum(dim=1).clamp(min=ALIKE)
        unexplained[start : start + HEIGHT] = error.square().sum(dim=1) / spread
        row, meta = codes[0].nonzero(as_tuple=True)
        parts.append((live.latents[start + row], meta, codes[0, row, meta].double()))
    latent, meta, weight = (torch.cat(column) for column in zip(*parts, strict=True))
    table = pd.DataFrame(
        {"latent": latent.numpy(), "meta_latent": meta.numpy(), "weight": weight.numpy()}
    ).sort_values(["latent", "weight"], ascending=[True, False], ignore_index=True)
    width = model.W_dec.shape[1]
    counts = torch.bincount(meta, minlength=width)
    totals = torch.bincount(meta, weights=weight, minlength=width)
    heaviest = torch.zeros(width, dtype=torch.float64).scatter_reduce_(0, meta, weight, "amax")
    return {
        "decomposition": table,
        "meta_latents": pd.DataFrame({
            "meta_latent": range(width),
            "latents": counts.numpy(),
            "density": (counts / len(live)).double().numpy(),
            "mean_weight": (totals / counts.clamp(min=1)).numpy(),
            "max_weight": heaviest.numpy(),
        }),
        "latents": pd.DataFrame({
            "latent": live.latents.numpy(),
            "explained": (1 - unexplained).numpy(),
            "meta_latents": torch.bincount(latent, minlength=int(live.latents.max()) + 1)[
                live.latents
            ].numpy(),
        }).sort_values("latent", ignore_index=True),
    }  # fmt: skip


def baselines(rows: Tensor, training: Training, seed: int) -> dict[str, float | Undefined]:
    """Centred variance of the rows [m, d] that principal components and k-means explain.

    With as many components as meta-latents, and with as many as are active on a row: k principal
    components, or the k centres that pursuit selects for each row.
    """
    table = unit(rows)
    centred = table - table.mean(dim=0)
    spread = float(centred.square().sum())
    flat = "the decoder rows do not vary"
    if spread <= ALIKE * len(table):
        names = ("pca_width", "pca_active", "kmeans_width", "kmeans_active")
        return dict.fromkeys(names, Undefined(flat))
    powers = torch.linalg.eigvalsh(centred.T @ centred).flip(0).clamp(min=0)
    shares = powers.cumsum(0) / powers.sum()
    components = min(training.width, len(shares))
    centres, cluster = k_means(
        table, min(training.width, len(table)), generator(seed, "meta_sae", "k-means")
    )
    sums = torch.zeros_like(centres).index_add_(0, cluster, table)
    sizes = torch.bincount(cluster, minlength=len(centres)).clamp(min=1)
    inside = float((table - (sums / sizes[:, None])[cluster]).square().sum())
    pursuit = pursue(table.float(), centres, count=training.k)
    residual = float(pursuit.residual.double().sum())
    return {
        "pca_width": float(shares[components - 1]),
        "pca_active": float(shares[min(training.k, len(shares)) - 1]),
        "kmeans_width": or_undefined(1 - inside / spread, flat),
        "kmeans_active": or_undefined(1 - residual / spread, flat),
    }
