"""A latent with a decoder row of zeros is dead: no score of the decoder sees it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import saebench_canon
from saebench_canon.saes.fold import fold

D = 8


def sae(m: int, seed: int, dead: int) -> Any:
    g = torch.Generator().manual_seed(seed)
    W_enc, W_dec = torch.randn(D, m, generator=g), torch.randn(m, D, generator=g)
    if dead:
        W_enc = torch.cat([W_enc[:, :1], torch.randn(D, dead, generator=g), W_enc[:, 1:]], dim=1)
        W_dec = torch.cat([W_dec[:1], torch.zeros(dead, D), W_dec[1:]])
    return fold(W_enc=W_enc, W_dec=W_dec, b_dec=torch.zeros(D))


@pytest.mark.parametrize("metrics", [["stitching", "composition"], ["meta_sae"], ["seed_matching"]])
def test_scores_of_decoders_do_not_see_rows_of_zeros(metrics: list[str]) -> None:
    sizes = (40, 60) if metrics != ["seed_matching"] else (40, 40)
    settings = {
        name: {"width": 10, "steps": 3} | ({"meta_seeds": 1} if name == "meta_sae" else {})
        for name in metrics
        if name.startswith("meta")
    }
    tables = [
        saebench_canon.evaluate(
            [sae(size, seed, dead) for seed, size in enumerate(sizes)],
            metrics=metrics,
            settings=settings,
        )
        for dead in (0, 3)
    ]
    without, padded = (table.set_index(["metric", "score"])["value"] for table in tables)
    assert without.notna().any()
    torch.testing.assert_close(
        torch.tensor(padded.to_numpy(dtype=float)),
        torch.tensor(without.to_numpy(dtype=float)),
        equal_nan=True,
    )
