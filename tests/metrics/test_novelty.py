"""Reproducible latents and what they are worth at their best scales, against plain versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from brute_force import CodedSAE, cosine, random_sae, rebuilt
from scipy.optimize import nnls
from torch import Tensor

from saebench_canon.metrics.stitching.best_scales import insert_at_best_scales
from saebench_canon.metrics.stitching.novelty import found_again

N, D, DOCS = 80, 6, 8


def pair(kind: str) -> tuple[Tensor, CodedSAE, CodedSAE]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64) + 1
    return x, random_sae(x, 7, kind, generator), random_sae(x, 11, kind, generator)


def inserted(x: Tensor, small: CodedSAE, large: CodedSAE, chosen: Tensor):  # type: ignore[no-untyped-def]
    index = torch.arange(N) // (N // DOCS)
    return insert_at_best_scales(
        x, index, DOCS, (small.codes, small.sae.W_dec, small.sae.b_dec),
        (large.codes, large.sae.W_dec), chosen,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["relu", "topk", "batchtopk", "jumprelu"])
def test_scales_are_those_of_non_negative_least_squares(kind: str) -> None:
    x, small, large = pair(kind)
    chosen = torch.arange(11) % 3 != 1
    result = inserted(x, small, large, chosen)
    live = [i for i in range(11) if chosen[i] and bool((large.dense[:, i] > 0).any())]
    fit = (torch.arange(N) // (N // DOCS)) % 2 == 0
    columns = [(large.dense[fit, i, None] * large.sae.W_dec[i]).flatten().numpy() for i in live]
    residual = x - rebuilt(small)
    scales, _ = nnls(np.stack(columns, axis=1), residual[fit].flatten().numpy())
    assert result.scales[live].numpy() == pytest.approx(scales, abs=1e-5)
    assert float(result.scales.sum()) == pytest.approx(float(scales.sum()), abs=1e-4)
    more = sum(s * large.dense[:, i, None] * large.sae.W_dec[i] for i, s in zip(live, scales))  # noqa: B905
    for document in range(DOCS):
        tokens = torch.arange(N) // (N // DOCS) == document
        assert float(result.without[document]) == pytest.approx(
            float((residual[tokens] ** 2).sum())
        )
        with_them = float(((residual - more)[tokens] ** 2).sum())
        assert float(result.inserted[document]) == pytest.approx(with_them, rel=1e-6)
    assert result.scored.tolist() == [False, True] * (DOCS // 2)


def test_the_scale_of_codes_changes_nothing() -> None:
    x, small, large = pair("relu")
    chosen = torch.ones(11, dtype=torch.bool)
    shrunk = CodedSAE(large.sae, large.dense * torch.linspace(0.1, 3, 11, dtype=torch.float64))
    original, rescaled = inserted(x, small, large, chosen), inserted(x, small, shrunk, chosen)
    torch.testing.assert_close(original.inserted, rescaled.inserted, rtol=1e-6, atol=0)


def test_inserting_nothing_changes_nothing() -> None:
    x, small, large = pair("topk")
    result = inserted(x, small, large, torch.zeros(11, dtype=torch.bool))
    torch.testing.assert_close(result.without, result.inserted, rtol=1e-12, atol=0)


def test_a_row_is_found_again_when_every_peer_has_it() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(9, D, generator=generator, dtype=torch.float64)
    peers = [
        torch.cat([rows[:6], torch.randn(3, D, generator=generator, dtype=torch.float64)]),
        torch.cat([-rows[:2], rows[3:]]),
    ]
    expected = [
        all(max(cosine(row, peer_row) for peer_row in peer) >= 0.7 for peer in peers)
        for row in rows
    ]
    assert found_again(rows, peers, 0.7).tolist() == expected
    assert True in expected
    assert False in expected
    assert not found_again(rows, [peers[0], rows[:0]], 0.7).any()
