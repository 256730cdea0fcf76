"""The unit of activations is a convention: no score without a unit depends on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import saebench_canon
from saebench_canon import Acts
from saebench_canon.saes.fold import fold

D, TOKENS = 32, 900
SQUARED = {"mse", "small_mse", "large_mse", "small_mse_rescaled", "large_mse_rescaled"}
LINEAR = {"threshold"}


def activations() -> tuple[Tensor, Tensor]:
    """Sparse sums of 30 directions [tokens, d], and the directions [30, d]."""
    g = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(30, D, generator=g), dim=1)
    active = torch.rand(TOKENS, 30, generator=g) < 0.07
    return (active * (1 + torch.rand(TOKENS, 30, generator=g))) @ directions, directions


def sae(directions: Tensor, count: int, seed: int, unit: float) -> Any:
    """The first directions with some noise, tied, in a unit of activations."""
    g = torch.Generator().manual_seed(seed)
    rows = directions[:count] + 0.03 * torch.randn(count, D, generator=g)
    return fold(
        W_enc=rows.T.clone(), W_dec=rows, b_enc=-0.5 * unit * torch.ones(count),
        b_dec=0.05 * unit * torch.randn(D, generator=g),
    )  # fmt: skip


def measured(unit: float, metric: str) -> pd.Series[float]:
    x, directions = activations()
    sizes = [(20, 0), (20, 1)] if metric == "seed_matching" else [(15, 0), (30, 1)]
    table = saebench_canon.evaluate(
        [sae(directions, *size, unit) for size in sizes],
        Acts(x * unit, torch.arange(TOKENS) // 50),
        metrics=[metric],
    )
    values: pd.Series[float] = table.set_index("score")["value"].astype(float)
    return values.groupby(level=0).first()


@pytest.mark.parametrize("metric", ["fidelity", "stitching", "seed_matching", "composition"])
@pytest.mark.parametrize("power", [-15, -6, 6, 8])
def test_scores_do_not_depend_on_the_unit(metric: str, power: int) -> None:
    before, after = measured(1.0, metric), measured(10.0**power, metric)
    assert before.notna().any()
    for score, value in before.items():
        unit = 10.0 ** (2 * power) if score in SQUARED else 1.0
        np.testing.assert_allclose(after[score] / unit, value, rtol=1e-3, atol=1e-6, err_msg=score)
