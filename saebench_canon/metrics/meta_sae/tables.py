"""What a meta-SAE says of each latent, and what simpler descriptions of the rows explain."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.composition import k_means
from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.meta_sae import MetaSAE
from saebench_canon.kernels.meta_training import Training
from saebench_canon.kernels.nnomp import pursue
from saebench_canon.kernels.seeds import generator
from saebench_canon.metrics.shared.live_rows import Rows
from saebench_canon.metrics.shared.sums import or_undefined
from saebench_canon.plugin.metric import Undefined

HEIGHT = 4096  # rows whose dense codes are held at once
ALIKE = 1e-12  # part of their square that rows may vary by and be all alike


def decomposition(live: Rows, model: MetaSAE) -> dict[str, pd.DataFrame]:
    """Each latent's meta-latents with their weights, and how often and how strongly each is used.

    The table `latents` gives what of each row, about the mean of all, its meta-latents explain.
    """
    parts = []
    left = torch.empty(len(live), dtype=torch.float64)
    middle = live.rows.double().mean(dim=0)
    for start in range(0, len(live), HEIGHT):
        rows = live.rows[start : start + HEIGHT]
        codes = model.encode(rows[None])
        error = rows.double() - model.decode(codes)[0].double()
        spread = (rows.double() - middle).square().sum(dim=1).clamp(min=ALIKE)
        left[start : start + HEIGHT] = error.square().sum(dim=1) / spread
        at, meta = codes[0].nonzero(as_tuple=True)
        parts.append((live.latents[start + at], meta, codes[0, at, meta].double()))
    latent, meta, weight = (torch.cat(each) for each in zip(*parts, strict=True))
    table = pd.DataFrame(
        {"latent": latent.numpy(), "meta_latent": meta.numpy(), "weight": weight.numpy()}
    ).sort_values(["latent", "weight"], ascending=[True, False], ignore_index=True)
    width = model.W_dec.shape[1]
    counts = torch.bincount(meta, minlength=width)
    totals = torch.bincount(meta, weights=weight, minlength=width)
    heavy = torch.zeros(width, dtype=torch.float64).scatter_reduce_(0, meta, weight, "amax")
    return {
        "decomposition": table,
        "meta_latents": pd.DataFrame({
            "meta_latent": range(width),
            "latents": counts.numpy(),
            "density": (counts / len(live)).double().numpy(),
            "mean_weight": (totals / counts.clamp(min=1)).numpy(),
            "max_weight": heavy.numpy(),
        }),
        "latents": pd.DataFrame({
            "latent": live.latents.numpy(),
            "explained": (1 - left).numpy(),
            "meta_latents": torch.bincount(latent, minlength=int(live.latents.max()) + 1)[
                live.latents
            ].numpy(),
        }).sort_values("latent", ignore_index=True),
    }  # fmt: skip


def baselines(rows: Tensor, how: Training, seed: int) -> dict[str, float | Undefined]:
    """Centred variance of the rows [m, d] that principal components and k-means explain.

    At the meta-SAE's number of components, and at its number of active ones: k components of all,
    or of each row the centres that pursuit picks.
    """
    table = unit(rows)
    middle = table.mean(dim=0)
    centred = table - middle
    spread = float(centred.square().sum())
    if spread <= ALIKE * len(table):
        none = Undefined("the decoder rows do not vary")
        return dict.fromkeys(("pca_width", "pca_active", "kmeans_width", "kmeans_active"), none)
    powers = torch.linalg.eigvalsh(centred.T @ centred).flip(0).clamp(min=0)
    shares = powers.cumsum(0) / powers.sum()
    components = min(how.width, len(shares))
    centres, own = k_means(
        table, min(how.width, len(table)), generator(seed, "meta_sae", "k-means")
    )
    sums = torch.zeros_like(centres).index_add_(0, own, table)
    sizes = torch.bincount(own, minlength=len(centres)).clamp(min=1)
    inside = float((table - (sums / sizes[:, None])[own]).square().sum())
    found = pursue(table.float(), centres, count=how.k)
    picked = float(found.residual.double().sum())
    flat = "the decoder rows do not vary"
    return {
        "pca_width": float(shares[components - 1]),
        "pca_active": float(shares[min(how.k, len(shares)) - 1]),
        "kmeans_width": or_undefined(1 - inside / spread, flat),
        "kmeans_active": or_undefined(1 - picked / spread, flat),
    }
