"""Insertion: how much error goes when an SAE gets the latents that it lacks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from measured import value
from scipy.optimize import nnls
from torch import Tensor
from torch.nn.functional import normalize

from saebench_canon.metrics.insertion.metric import insertion
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.metric import Measurement, Undefined, Value
from saebench_canon.saes.fold import fold

D, FEATURES, TOKENS, DOCUMENTS = 32, 20, 240, 12


def features(seed: int = 0) -> Tensor:
    return normalize(torch.randn(FEATURES, D, generator=torch.Generator().manual_seed(seed)), dim=1)


def world() -> Acts:
    source = torch.Generator().manual_seed(1)
    active = (torch.rand(TOKENS, FEATURES, generator=source) < 0.1).float()
    codes = active * (1 + torch.rand(TOKENS, FEATURES, generator=source))
    return Acts(codes @ features(), torch.arange(TOKENS) * DOCUMENTS // TOKENS)


def sae(rows: Tensor, scale: float = 1.0) -> Any:
    """Codes of a pseudo-inverse, so that rows that are features read them nearly exactly."""
    encoder = torch.linalg.pinv(rows) * scale
    bias = torch.full((len(rows),), -0.05)
    return fold(W_enc=encoder, W_dec=rows, b_dec=torch.zeros(D), b_enc=bias)


def noisy(rows: Tensor, seed: int) -> Tensor:
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
    return normalize(rows + 0.1 * noise / math.sqrt(D), dim=1)


def measured(small: Any, large: Any, *peers: Any, acts: Acts | None = None) -> Measurement:
    acts = acts or world()
    codes = [one.encode_sparse(acts.x) for one in (small, large, *peers)]
    found = insertion.measure(
        small, large, codes[0], codes[1], acts, peers, tuple(codes[2:]), **insertion.settings
    )
    assert isinstance(found, Measurement)
    return found


def brute_force(small: Any, large: Any, latents: list[int], acts: Acts) -> float:
    """The gain on odd documents, with scales fitted on even ones, by dense matrices."""
    x, doc = acts.x.double().numpy(), acts.doc.numpy()

    def parts(one: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        codes = one.encode_sparse(acts.x).dense().double().numpy()
        return codes, one.W_dec.double().numpy(), one.b_dec.double().numpy()

    codes0, rows0, bias0 = parts(small)
    codes1, rows1, _ = parts(large)
    target, guess = x - bias0, codes0 @ rows0
    factor = max(float((target * guess).sum() / (guess**2).sum()), 0.0)
    residual = target - factor * guess
    fit = doc % 2 == 0
    columns = [np.outer(codes1[:, latent], rows1[latent]) for latent in latents]
    design = np.stack([column[fit].ravel() for column in columns], axis=1)
    scales, _ = nnls(design, residual[fit].ravel())
    after = residual - sum(scale * column for scale, column in zip(scales, columns, strict=True))
    return 1 - float((after[~fit] ** 2).sum() / (residual[~fit] ** 2).sum())


def test_the_gain_is_that_of_dense_matrices() -> None:
    small, large = sae(features()[:12], scale=0.8), sae(noisy(features(), 1))
    peer = sae(noisy(features(), 2))
    result = measured(small, large, peer)
    expected = brute_force(small, large, list(range(12, 20)), world())
    assert value(result, "inserted") == 8
    assert value(result, "stable_gain") == pytest.approx(expected, abs=1e-4)
    assert expected > 0.5


def test_nothing_is_gained_where_nothing_is_missing() -> None:
    result = measured(*(sae(noisy(features(), seed)) for seed in (1, 2, 3)))
    assert value(result, "inserted") == 0
    assert value(result, "stable_gain") == 0


def test_only_what_the_witness_finds_too_is_added() -> None:
    small, large = sae(features()[:12]), sae(noisy(features(), 1))
    half = sae(noisy(features()[:16], 2))
    other = sae(noisy(features(), 3))
    alone, both = measured(small, large, half), measured(small, large, half, other)
    assert value(alone, "inserted") == 4
    assert value(both, "inserted") == 6  # 4 and 8
    gains = [value(measured(small, large, peer), "stable_gain") for peer in (half, other)]
    assert value(both, "stable_gain") == pytest.approx(sum(gains) / 2)
    assert gains[0] < gains[1]


def test_the_order_of_witnesses_and_of_documents_names_changes_nothing() -> None:
    small, large = sae(features()[:12]), sae(noisy(features(), 1))
    peers = [sae(noisy(features()[:count], count)) for count in (15, 18)]
    acts = world()
    renamed = Acts(acts.x, acts.doc * 7 + 3)
    result = measured(small, large, *peers)
    for other in (
        measured(small, large, *reversed(peers)),
        measured(small, large, *peers, acts=renamed),
    ):
        for name in ("stable_gain", "inserted", "small_mse_rescaled"):
            assert value(other, name) == pytest.approx(value(result, name), abs=1e-9)


def test_documents_hold_what_the_gain_is_made_of() -> None:
    small, large = sae(features()[:12]), sae(noisy(features(), 1))
    result = measured(small, large, sae(noisy(features(), 2)))
    table = result.tables["documents"]
    assert table.document.tolist() == [1, 3, 5, 7, 9, 11]
    gain = result.scores["stable_gain"]
    assert isinstance(gain, Value)
    assert table.removed.sum() / table.error.sum() == pytest.approx(gain.value)
    assert gain.stderr is not None
    assert gain.n == 6


def test_a_duplicate_adds_nothing_that_its_latent_does_not() -> None:
    small, large = sae(features()[:12]), sae(noisy(features(), 1))
    peer = sae(noisy(features(), 2))
    doubled = fold(
        W_enc=torch.cat([large.coder.weights[:, :], large.coder.weights[:, -1:]], dim=1) * 1.0,
        W_dec=torch.cat([large.W_dec, large.W_dec[-1:]]),
        b_dec=large.b_dec,
        b_enc=torch.cat([large.coder.bias, large.coder.bias[-1:]]),
    )
    once, twice = measured(small, large, peer), measured(small, doubled, peer)
    assert value(twice, "inserted") == value(once, "inserted")
    assert value(twice, "stable_gain") == pytest.approx(value(once, "stable_gain"), abs=1e-6)


def test_a_smaller_sae_that_shrinks_its_codes_lacks_nothing_by_that() -> None:
    shrunk = sae(features()[:12], scale=0.5)
    large, peer = sae(noisy(features(), 1)), sae(noisy(features(), 2))
    result = measured(shrunk, large, peer)
    assert value(result, "inserted") == 8


def test_a_common_direction_is_taken_out_of_the_comparison_and_not_of_the_codes() -> None:
    common = torch.zeros(D)
    common[0] = 1.5
    true = normalize(features() + common, dim=1)
    acts = world()
    source = torch.Generator().manual_seed(3)
    active = (torch.rand(TOKENS, FEATURES, generator=source) < 0.1).float()
    acts = Acts(active @ true, acts.doc)
    small, large, peer = sae(true[:12]), sae(noisy(true, 1)), sae(noisy(true, 2))
    result = measured(small, large, peer, acts=acts)
    assert value(result, "inserted") < 8  # all rows are near one another
    assert value(result, "inserted_centred") == 8
    assert value(result, "stable_gain_centred") > value(result, "stable_gain")
    assert "removed_centred" in result.tables["documents"]


def test_what_cannot_be_measured_says_why() -> None:
    small, large = sae(features()[:12]), sae(noisy(features(), 1))
    alone = measured(small, large)
    assert isinstance(alone.scores["stable_gain"], Undefined)
    assert "witnesses" in alone.scores["stable_gain"].reason
    acts = world()
    one = Acts(acts.x, torch.zeros(TOKENS, dtype=torch.int64))
    result = measured(small, large, sae(noisy(features(), 2)), acts=one)
    assert result.scores["stable_gain"] == Undefined(
        "one document: none is left to score the scales on"
    )
