"""Whether θ tells the latents that help from those that do not (Leask et al. 2025, Fig. 13)."""

from __future__ import annotations

import pandas as pd

from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.stitching.gains import Added
from saebench_canon.metrics.stitching.novelty import Comparison
from saebench_canon.metrics.stitching.roc import auc, auc_interval, best_threshold, roc

DRAWS = 200  # of the bootstrap over latents


def threshold_study(
    compared: Comparison, added: Added, threshold: float, seed: int
) -> dict[str, pd.DataFrame]:
    """ROC curves, the AUC's interval, and the confusion at θ, for both biases (Fig. 13)."""
    curves, summary = [], []
    for name, column in (("fixed", "delta_mse_fixed_bias"), ("eq5", "delta_mse")):
        helps = (added.columns[column] < 0).cpu()
        low = compared.cosine.cpu()
        curve = roc(low, helps)
        curves.append(curve.assign(bias=name))
        interval = auc_interval(low, helps, generator(seed, "roc", name), DRAWS)
        novel = low < threshold
        summary.append({
            "bias": name,
            "auc": auc(low, helps),
            "auc_low": interval[0],
            "auc_high": interval[1],
            "best_threshold": best_threshold(low, helps),
            "threshold": threshold,
            "novel_helps": int((novel & helps).sum()),
            "novel_harms": int((novel & ~helps).sum()),
            "near_helps": int((~novel & helps).sum()),
            "near_harms": int((~novel & ~helps).sum()),
        })  # fmt: skip
    return {"roc": pd.concat(curves, ignore_index=True), "thresholds": pd.DataFrame(summary)}
