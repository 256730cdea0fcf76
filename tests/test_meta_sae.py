"""A meta-SAE finds composition where it was planted, only there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from brute_force import TinySAE
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.meta_sae import Training, train
from saebench_canon.kernels.nulls import covariance_matched, isotropic
from saebench_canon.kernels.seeds import generator
from saebench_canon.metrics.meta_sae import meta_sae, sorted_rows
from saebench_canon.scores import Measurement, Undefined, Value


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


def measure(rows: Tensor, codes: Codes | None = None, memo: Any = None, **more: Any) -> Measurement:
    seed = more.pop("seed", 0)
    found = meta_sae.measure(TinySAE(rows, torch.zeros(rows.shape[1])), seed, codes, memo, **more)
    assert isinstance(found, Measurement)
    return found


def values(found: Measurement) -> dict[str, float | str]:
    out: dict[str, float | str] = {}
    for name, score in found.scores.items():
        assert isinstance(score, (Value, Undefined))
        out[name] = score.reason if isinstance(score, Undefined) else score.value
    return out


def number(found: Measurement, name: str) -> float:
    score = values(found)[name]
    assert isinstance(score, float), score
    return score


QUICK: dict[str, Any] = {"width": 10, "k": 2, "steps": 12}


def test_the_metric_reads_the_rows_trained_on_at_the_inference_threshold() -> None:
    table = composed(96, 24, 12)
    found = measure(table, holdout=0.0, steps=40, k=3, width=20)
    how = Training(width=20, k=3, steps=40, batch=1024, lr=5e-4)
    rows = sorted_rows(table)
    null = covariance_matched(rows, generator(0, "meta_sae", 0, "covariance")).float()
    seen = torch.stack([rows, null])
    model = train(seen, how, generator(0, "meta_sae", 0, "training"), what="a test")
    z = (seen - model.b_dec[:, None]) @ model.W_enc.transpose(1, 2)
    codes = torch.where(z >= model.threshold[:, None, None], z, 0)
    assert int((codes[0] > 0).sum(dim=1).min()) < 3 < int((codes[0] > 0).sum(dim=1).max())
    rebuilt = codes @ model.W_dec + model.b_dec[:, None]
    error = ((seen - rebuilt) ** 2).sum(dim=(1, 2))
    spread = ((seen - seen.mean(dim=1, keepdim=True)) ** 2).sum(dim=(1, 2))
    explained = (1 - error / spread).tolist()
    assert number(found, "explained_variance") == pytest.approx(explained[0], abs=1e-5)
    assert number(found, "null_covariance") == pytest.approx(explained[1], abs=1e-5)
    active = (codes[0] > 0).double()
    assert number(found, "meta_l0") == pytest.approx(float(active.sum(dim=1).mean()))
    dead = float((active.sum(dim=0) == 0).double().mean())
    assert number(found, "meta_dead_share") == pytest.approx(dead)


def test_an_sae_without_a_live_latent_leaves_every_score_undefined() -> None:
    codes = Codes.from_dense(torch.zeros(5, 20))
    found = measure(random(20, 6).float(), codes)
    assert set(found.scores) == {score.name for score in meta_sae.scores}
    assert set(found.scores.values()) == {Undefined("no latent is live")}


def composed(m: int, d: int, atoms: int, seed: int = 0) -> Tensor:
    g = generator(seed, "composed")
    table = isotropic(atoms, d, g)
    picks = torch.stack([torch.randperm(atoms, generator=g)[:3] for _ in range(m)])
    noise = torch.randn(m, d, generator=g, dtype=torch.float64) * 0.1 / d**0.5
    return (table[picks].sum(dim=1) + noise).float()


def test_planted_sums_are_explained_far_beyond_the_null() -> None:
    found = measure(composed(200, 48, 48))
    assert number(found, "explained_variance") > 0.9
    assert number(found, "above_null") > 0.15
    held = number(found, "heldout_explained_variance")
    assert held > number(found, "heldout_null") + 0.3
    assert number(found, "explained_variance") - number(found, "null_covariance") == pytest.approx(
        number(found, "above_null")
    )
    assert 3.9 < number(found, "meta_l0") < 4.1
    assert set(found.scores) == {score.name for score in meta_sae.scores}


def test_random_rows_are_no_better_than_the_null() -> None:
    found = measure(isotropic(200, 48, generator(3, "rows")).float())
    assert abs(number(found, "above_null")) < 0.025
    assert abs(number(found, "explained_variance") - number(found, "null_isotropic")) < 0.04
    held = number(found, "heldout_explained_variance")
    assert abs(held - number(found, "heldout_null")) < 0.1


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 999))
def test_order_scale_and_dead_latents_change_nothing_at_all(seed: int) -> None:
    rows = random(40, 6, seed=seed).float()
    g = generator(seed, "change")
    order = torch.randperm(40, generator=g)
    scale = 2.0 ** torch.randint(-3, 4, (40, 1), generator=g)
    before = values(measure(rows, **QUICK))
    assert values(measure(rows[order] * scale, **QUICK)) == before
    grown = torch.cat([random(5, 6, seed=seed + 1).float(), rows[order]])
    active = torch.cat([torch.zeros(3, 5), torch.ones(3, 40)], dim=1)
    assert values(measure(grown, Codes.from_dense(active), **QUICK)) == before


def test_any_scale_changes_no_more_than_rounding_does() -> None:
    rows = composed(96, 24, 12)
    scale = torch.rand(96, 1, generator=generator(1)) * 5 + 0.1
    before, after = measure(rows, steps=300), measure(rows * scale, steps=300)
    for name in before.scores:
        assert number(after, name) == pytest.approx(number(before, name), abs=0.01), name


def test_sorted_rows_are_the_same_whatever_the_order_also_where_many_agree() -> None:
    rows = torch.cat([torch.eye(6), torch.eye(6)[:3], -torch.eye(6)])
    order = torch.randperm(len(rows), generator=generator(0))
    assert torch.equal(sorted_rows(rows), sorted_rows(rows[order]))


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    rows = random(40, 6).float()
    state = torch.random.get_rng_state()
    first, again, other = (values(measure(rows, seed=seed, **QUICK)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_isotropic_null_is_asked_of_the_memo_under_what_it_depends_on() -> None:
    asked: list[dict[str, Any]] = []

    def memo(key: dict[str, Any], make: Callable[[], dict[str, float]]) -> dict[str, float]:
        asked.append(key)
        return make()

    rows = random(40, 6).float()
    through = values(measure(rows, memo=memo, **QUICK))
    assert through == values(measure(rows, **QUICK))
    measure(random(40, 6, seed=1).float(), memo=memo, **QUICK)
    measure(rows, memo=memo, **{**QUICK, "k": 3})
    assert asked[0] == asked[1] != asked[2]
    kept = measure(rows, memo=lambda key, make: {"0": 0.25}, **QUICK)
    assert number(kept, "null_isotropic") == 0.25


def test_meta_seeds_are_averaged_and_keep_other_rows_out() -> None:
    rows = random(40, 6).float()
    three = measure(rows, meta_seeds=3, **QUICK)
    score = three.scores["explained_variance"]
    assert isinstance(score, Value)
    assert (score.n, score.unit) == (3, "meta-seed")
    assert score.stderr is not None
    assert score.stderr > 0
    single = measure(rows, **QUICK).scores["explained_variance"]
    assert isinstance(single, Value)
    assert single.stderr is None


def test_without_rows_held_out_the_held_out_scores_are_undefined() -> None:
    found = measure(random(40, 6).float(), holdout=0.0, **QUICK)
    assert found.scores["heldout_explained_variance"] == Undefined("no row is held out")
    assert found.scores["heldout_null"] == Undefined("no row is held out")


def test_rows_that_are_all_alike_leave_the_scores_undefined() -> None:
    found = measure(torch.ones(40, 6), **QUICK)
    assert isinstance(found.scores["explained_variance"], Undefined)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "a meta-SAE of width 5 on 20 live decoder rows is narrower than 2k = 8"),
        ({"preset": "quater"}, "Did you mean 'quarter'"),
        ({"holdout": 1.0}, "holdout = 1.0"),
        ({"holdout": 0.99}, "keeps 20 out and trains on 0, and it takes 2 of each"),
        ({"holdout": 0.05}, "keeps 1 out and trains on 19, and it takes 2 of each"),
        ({"meta_seeds": 0}, "meta_seeds = 0"),
        ({"k": 0}, "k = 0 is not 1 or more"),
        ({"steps": 0}, "steps = 0 is not 1 or more"),
        ({"batch": 0}, "batch = 0 is not 1 or more"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CanonError, match="meta") as caught:
        measure(random(20, 6).float(), **settings)
    assert sentence in str(caught.value)
