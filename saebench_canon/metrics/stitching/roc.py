"""ROC curves: how well a low cosine predicts that a latent helps (Leask et al. 2025, Fig. 13)."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor


def auc(low: Tensor, positive: Tensor) -> float | None:
    """Area under the ROC curve of low values [m] predicting the positives [m] bool, ties half.

    None when all or none are positive.
    """
    hits = int(positive.sum())
    misses = len(positive) - hits
    if hits == 0 or misses == 0:
        return None
    _, group = torch.unique(low, return_inverse=True)  # groups in rising order
    groups = int(group.max()) + 1
    hit = torch.bincount(group[positive], minlength=groups).double()
    miss = torch.bincount(group[~positive], minlength=groups).double()
    above = misses - torch.cumsum(miss, dim=0)
    return float((hit * (above + miss / 2)).sum()) / (hits * misses)


def best_threshold(low: Tensor, positive: Tensor) -> float | None:
    """The threshold below which a value [m] best predicts a positive, by Youden's J.

    It lies halfway between two neighbouring values, and is the lowest of equally good ones. It is
    the smallest value itself when predicting no positive is best. None when all or none are
    positive.
    """
    hits = int(positive.sum())
    misses = len(positive) - hits
    if hits == 0 or misses == 0:
        return None
    values, group = torch.unique(low, return_inverse=True)
    hit = torch.bincount(group[positive], minlength=len(values)).double()
    miss = torch.bincount(group[~positive], minlength=len(values)).double()
    gained = torch.cumsum(hit, dim=0) / hits - torch.cumsum(miss, dim=0) / misses
    best = float(gained[:-1].max()) if len(values) > 1 else 0.0
    if best <= 0:
        return float(values[0])
    best_index = int((gained[:-1] >= best - 1e-12).nonzero()[0])
    return float(values[best_index] + values[best_index + 1]) / 2


def roc(low: Tensor, positive: Tensor) -> pd.DataFrame:
    """The ROC curve of low values [m] predicting positives [m] bool: a row for every threshold.

    A value is predicted positive when it is below the threshold; rates are nan where there are no
    positives or no negatives.
    """
    values, group = torch.unique(low.double(), return_inverse=True)
    hit = torch.bincount(group[positive], minlength=len(values)).double()
    miss = torch.bincount(group[~positive], minlength=len(values)).double()
    zero = hit.new_zeros(1)
    above = torch.cat([values, values.new_full((1,), torch.inf)])
    return pd.DataFrame({
        "threshold": above.numpy(),
        "true_positive_rate": (torch.cat([zero, hit.cumsum(0)]) / hit.sum()).numpy(),
        "false_positive_rate": (torch.cat([zero, miss.cumsum(0)]) / miss.sum()).numpy(),
    })  # fmt: skip


def auc_interval(
    low: Tensor, positive: Tensor, generator: torch.Generator, draws: int, level: float = 0.95
) -> tuple[float | None, float | None]:
    """The bootstrap interval of the AUC over latents; None where it is undefined."""
    values = []
    for _ in range(draws):
        drawn = torch.randint(len(low), (len(low),), generator=generator)
        value = auc(low[drawn], positive[drawn])
        if value is not None:
            values.append(value)
    if len(values) < draws / 2:
        return None, None
    outer = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    lo, hi = torch.quantile(torch.tensor(values, dtype=torch.float64), outer).tolist()
    return lo, hi
