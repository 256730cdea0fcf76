"""The meta-SAE's gradients are right, and it finds composition where it was planted, only there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from brute_force import TinySAE
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels import meta_sae as kernel
from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.meta_sae import (
    MetaSAE,
    Training,
    explained_variance,
    gradients,
    select,
    train,
)  # fmt: skip
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


@pytest.mark.parametrize("k", [1, 3])
def test_gradients_agree_with_autograd(k: int) -> None:
    B, n, M, d = 2, 7, 5, 4
    x, W_enc, W_dec, b = (
        random(B, n, d),
        random(B, M, d, seed=1),
        random(B, M, d, seed=2),
        random(B, d, seed=3),
    )
    z = torch.bmm(x - b[:, None], W_enc.transpose(1, 2))
    found = gradients(x, W_enc.view(-1, d), W_dec.view(-1, d), b, select(z, k, [0.0] * B))
    leaves = [each.clone().requires_grad_() for each in (W_enc, W_dec, b)]
    loss = torch.zeros((), dtype=torch.float64)
    for at in range(B):
        pre = (x[at] - leaves[2][at]) @ leaves[0][at].T
        least = pre.detach().relu().flatten().topk(k * n).values.min()
        codes = torch.where((pre >= least) & (pre > 0), pre, 0)
        assert int((codes > 0).sum()) == min(k * n, int((pre > 0).sum()))
        loss = loss + ((codes @ leaves[1][at] + leaves[2][at] - x[at]) ** 2).sum() / n
    loss.backward()
    for mine, theirs in zip((found.W_enc, found.W_dec, found.b_dec), leaves, strict=True):
        assert theirs.grad is not None
        torch.testing.assert_close(mine.view_as(theirs.grad), theirs.grad)


@pytest.mark.parametrize("aux_k", [2, 512])
def test_the_aux_losss_gradients_agree_with_autograd(aux_k: int) -> None:
    B, n, M, d = 2, 7, 6, 4
    how = Training(width=M, k=2, steps=1, batch=n, lr=0.1, aux_k=aux_k)
    flat = random(B * (2 * M + 1) * d)
    cut = B * M * d
    x, error = random(B, n, d, seed=1), random(B * n, d, seed=2)
    dead = torch.tensor([1, 0, 1, 1, 0, 0] + [0] * 6, dtype=torch.bool)
    leaf = flat.clone().requires_grad_()
    enc, dec, b = (
        leaf[:cut].view(B, M, d),
        leaf[cut : 2 * cut].view(B, M, d),
        leaf[2 * cut :].view(B, d),
    )
    z = torch.bmm(x - b[:, None], enc.transpose(1, 2))
    codes = z[0][:, dead[:M]].relu()
    if aux_k < 3:
        codes = codes * (codes >= codes.detach().topk(aux_k, dim=1).values[:, -1:])
    revived = codes @ dec[0, dead[:M]]
    (how.aux_weight * ((revived + error[:n]) ** 2).sum() / n).backward()
    grad = torch.zeros_like(flat)
    kernel._revive(x, z.detach(), error, dead, flat, grad, how)
    assert leaf.grad is not None
    torch.testing.assert_close(grad, leaf.grad)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 999), st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.floats(0, 3)
)
def test_the_largest_positive_codes_are_selected(
    seed: int, n: int, M: int, k: int, floor: float
) -> None:
    z = random(2, n, M, seed=seed)
    found = select(z, k, [floor, 0.0])
    for at in range(2):
        positive = sorted(v for v in z[at].flatten().tolist() if v > 0)
        mine = (found.row // n) == at
        assert sorted(found.values[mine].tolist()) == positive[-k * n :]
        assert found.least[at] == min(positive[-k * n :], default=0.0)
    assert torch.equal(z.view(2 * n, M)[found.row, found.latent % M], found.values)
    assert torch.equal(found.row // n, found.latent // M)
    assert found.row.tolist() == sorted(found.row.tolist())


def test_adam_steps_as_torchs_does() -> None:
    mine, theirs = random(30), torch.nn.Parameter(random(30))
    first, second = torch.zeros(30, dtype=torch.float64), torch.zeros(30, dtype=torch.float64)
    other = torch.optim.Adam([theirs], lr=0.01)
    for step in range(1, 6):
        gradient = random(30, seed=step)
        kernel._adam(mine, gradient, first, second, step, 0.01)
        theirs.grad = gradient
        other.step()
    torch.testing.assert_close(mine, theirs.data)


def test_batches_hold_no_row_twice_and_all_rows_come_by() -> None:
    batches = kernel._batches(10, 4, generator(0))
    seen = [next(batches) for _ in range(40)]
    assert all(each is not None and len(set(each.tolist())) == 4 for each in seen)
    assert {int(i) for each in seen if each is not None for i in each} == set(range(10))
    assert next(kernel._batches(10, 10, generator(0))) is None


def test_predicting_the_mean_explains_exactly_nothing() -> None:
    rows = random(2, 9, 4) + 1
    mean = rows.mean(dim=1, keepdim=True).expand_as(rows)
    assert explained_variance(rows, mean, centred=True) == [0.0, 0.0]
    plain = explained_variance(rows, mean, centred=False)
    expected = 1 - float(((rows - mean)[0] ** 2).sum() / (rows[0] ** 2).sum())
    assert plain[0] == pytest.approx(expected)
    flat = torch.ones(1, 5, 3)
    assert math.isnan(explained_variance(flat, flat, centred=True)[0])


def test_the_threshold_lets_k_codes_a_row_pass_on_the_rows_trained_on() -> None:
    rows = torch.stack([isotropic(64, 16, generator(seed)) for seed in (0, 1)]).float()
    how = Training(width=16, k=3, steps=60, batch=64, lr=5e-3)
    model = train(rows, how, generator(0), what="a test")
    codes = model.encode(rows)
    assert (codes > 0).sum(dim=(1, 2)).tolist() == [192, 192]
    torch.testing.assert_close(model.W_dec.norm(dim=2), torch.ones(2, 16))
    guess = model.decode(codes)
    torch.testing.assert_close(guess[1], codes[1] @ model.W_dec[1] + model.b_dec[1])
    largest = model.encode_largest(rows, 3)
    assert int((largest > 0).sum(dim=2).max()) <= 3


def test_small_batches_learn_too() -> None:
    rows = isotropic(64, 16, generator(0)).float()[None]
    how = Training(width=16, k=3, steps=1, batch=20, lr=5e-3)
    before = train(rows, how, generator(0), what="a test")
    after = train(rows, Training(16, 3, 200, 20, 5e-3), generator(0), what="a test")

    def explained(model: MetaSAE) -> float:
        return explained_variance(rows, model.decode(model.encode(rows)), centred=True)[0]

    assert explained(after) > explained(before) + 0.1
    assert 2 < float((after.encode(rows) > 0).double().sum(dim=2).mean()) < 5


def test_one_dictionary_learns_the_same_beside_another() -> None:
    rows = torch.stack([isotropic(40, 8, generator(seed)) for seed in (0, 1)])
    how = Training(width=10, k=2, steps=30, batch=64, lr=5e-3)
    both = train(rows, how, generator(5), what="a test")
    alone = train(rows[1:], how, generator(5), what="a test")
    torch.testing.assert_close(both.W_dec[1:], alone.W_dec)
    torch.testing.assert_close(both.threshold[1:], alone.threshold)


def test_the_threshold_is_the_mean_over_batches_of_the_least_code_chosen() -> None:
    rows = isotropic(50, 8, generator(0))[None]
    enc, b = isotropic(12, 8, generator(1))[None], 0.1 * random(1, 8)
    found = kernel._threshold(rows, enc, b, 2, 15, generator(2))
    batches, least = kernel._batches(50, 15, generator(2)), []
    for _ in range(kernel.THRESHOLD_BATCHES):
        chosen = next(batches)
        assert chosen is not None
        z = (rows[0][chosen] - b[0]) @ enc[0].T
        kept = sorted(v for v in z.flatten().tolist() if v > 0)[-2 * 15 :]
        least.append(kept[0])
    assert max(least) > min(least) + 0.05
    assert float(found[0]) == pytest.approx(sum(least) / len(least))


def test_dead_meta_latents_are_revived() -> None:
    aside = 2 * isotropic(1, 16, generator(9))  # most latents start out facing away from the rows
    rows = unit(isotropic(200, 16, generator(0)) + aside).float()[None]

    def dead(dead_after: int) -> int:
        how = Training(60, 1, 400, 1024, 1e-2, dead_after=dead_after)
        model = train(rows, how, generator(3), what="a test")
        return int((model.encode(rows) <= 0).all(dim=1).sum())

    assert dead(400) > dead(20) + 10


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
