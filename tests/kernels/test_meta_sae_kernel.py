"""The meta-SAE's gradients are right and its training does what it says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saebench_canon.kernels import batchtopk_steps as sparse_steps
from saebench_canon.kernels import meta_sae as kernel
from saebench_canon.kernels.adam import Adam
from saebench_canon.kernels.batchtopk_steps import Gradients, dense_codes, dense_gradients
from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.meta_sae import (
    MetaSAE,
    Training,
    explained_variance,
    gradients,
    select,
    train,
)  # fmt: skip
from saebench_canon.kernels.nulls import isotropic
from saebench_canon.kernels.random_generators import generator


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


def loss_of(x: Tensor, W_enc: Tensor, W_dec: Tensor, b: Tensor, k: int) -> Tensor:
    """The loss by its definition: mean over rows of ‖w − ŵ‖², summed over dictionaries."""
    B, n, _ = x.shape
    loss = torch.zeros((), dtype=x.dtype)
    for dictionary in range(B):
        pre = (x[dictionary] - b[dictionary]) @ W_enc[dictionary].T
        least = pre.detach().relu().flatten().topk(k * n).values.min()
        codes = torch.where((pre >= least) & (pre > 0), pre, 0)
        assert int((codes > 0).sum()) == min(k * n, int((pre > 0).sum()))
        loss = loss + ((codes @ W_dec[dictionary] + b[dictionary] - x[dictionary]) ** 2).sum() / n
    return loss


class ByHand(torch.autograd.Function):
    """The loss with the gradients that training takes."""

    @staticmethod
    def forward(
        ctx: Any, W_enc: Tensor, W_dec: Tensor, b: Tensor, x: Tensor, k: int, path: str
    ) -> Tensor:
        B, M, d = W_enc.shape
        centred = x - b[:, None]
        z = centred @ W_enc.transpose(1, 2)
        enc, dec = W_enc.reshape(B * M, d), W_dec.reshape(B * M, d)
        if path == "sparse":
            gradient = gradients(x, enc, dec, b, select(z, k, [0.0] * B))
        else:
            gradient = dense_gradients(centred, enc, dec, dense_codes(z, k, [0.0] * B)[0])
        ctx.gradient = gradient
        return gradient.rebuilt.pow(2).sum() * x.shape[1] / 4

    @staticmethod
    def backward(ctx: Any, *back: Tensor) -> Any:
        gradient, shape = ctx.gradient, (len(ctx.gradient.b_dec), -1, ctx.gradient.b_dec.shape[1])
        parts = gradient.W_enc.view(shape), gradient.W_dec.view(shape), gradient.b_dec
        return *(part * back[0] for part in parts), None, None, None


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("path", ["sparse", "dense"])
@pytest.mark.parametrize("k", [1, 3])
def test_gradients_agree_with_autograd(k: int, path: str) -> None:
    B, n, M, d = 2, 7, 5, 4
    x, b = random(B, n, d), random(B, d, seed=3)
    W_enc, W_dec = random(B, M, d, seed=1), random(B, M, d, seed=2)
    leaves = [weight.clone().requires_grad_() for weight in (W_enc, W_dec, b)]
    loss_of(x, *leaves, k=k).backward()
    mine = [weight.clone().requires_grad_() for weight in (W_enc, W_dec, b)]
    value = ByHand.apply(*mine, x, k, path)
    torch.testing.assert_close(value.detach(), loss_of(x, W_enc, W_dec, b, k))
    value.backward()
    for parameter, leaf in zip(mine, leaves, strict=True):
        torch.testing.assert_close(parameter.grad, leaf.grad)
    torch.autograd.gradcheck(lambda *parameters: ByHand.apply(*parameters, x, k, path), mine)


@pytest.mark.parametrize("aux_k", [2, 512])
def test_the_aux_losss_gradients_agree_with_autograd(aux_k: int) -> None:
    B, n, M, d = 2, 7, 6, 4
    training = Training(width=M, k=2, steps=1, batch=n, lr=0.1, aux_k=aux_k)
    enc, dec, b = random(B, M, d), random(B, M, d, seed=4), random(B, d, seed=5)
    x, error = random(B, n, d, seed=1), random(B, n, d, seed=2)
    dead = torch.tensor([1, 0, 1, 1, 0, 0] + [0] * 6, dtype=torch.bool)
    leaves = [weight.clone().requires_grad_() for weight in (enc, dec, b)]
    z = torch.bmm(x - leaves[2][:, None], leaves[0].transpose(1, 2))
    codes = z[0][:, dead[:M]].relu()
    if aux_k < 3:
        codes = codes * (codes >= codes.detach().topk(aux_k, dim=1).values[:, -1:])
    revived = codes @ leaves[1][0, dead[:M]]
    (training.aux_weight * ((revived + error[0]) ** 2).sum() / n).backward()
    gradient = Gradients(
        torch.zeros(B * M, d, dtype=x.dtype),
        torch.zeros(B * M, d, dtype=x.dtype),
        torch.zeros(B, d, dtype=x.dtype),
        error * (2 / n),
        torch.zeros(B * M, dtype=x.dtype),
        ~dead,
    )
    centred = x - b[:, None]
    kernel._revive(centred, z.detach(), enc.view(-1, d), dec.view(-1, d), dead, gradient, training)
    for mine, leaf in zip((gradient.W_enc, gradient.W_dec, gradient.b_dec), leaves, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(mine.view_as(leaf.grad), leaf.grad)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 999), st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.floats(0, 3)
)
def test_the_largest_positive_codes_are_selected(
    seed: int, n: int, M: int, k: int, floor: float
) -> None:
    z = random(2, n, M, seed=seed)
    selected = select(z, k, [floor, 0.0])
    for dictionary in range(2):
        positive = sorted(v for v in z[dictionary].flatten().tolist() if v > 0)
        mine = (selected.row // n) == dictionary
        assert sorted(selected.values[mine].tolist()) == positive[-k * n :]
        assert selected.least[dictionary] == min(positive[-k * n :], default=0.0)
    assert torch.equal(z.view(2 * n, M)[selected.row, selected.latent % M], selected.values)
    assert torch.equal(selected.row // n, selected.latent // M)
    assert selected.row.tolist() == sorted(selected.row.tolist())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.booleans())
def test_a_sort_on_another_device_selects_the_same(
    seed: int, n: int, M: int, k: int, ties: bool
) -> None:
    z = random(2, n, M, seed=seed)
    z = z.round() if ties else z
    selected = select(z, k, [0.0, 0.0])
    entry, values, least = sparse_steps._select_by_topk(z.view(2, -1), k * n)
    assert torch.equal(values, selected.values)
    assert torch.equal(entry // M, selected.row)
    codes, low = dense_codes(z, k, [0.1, 0.0])
    assert least == selected.least == low
    assert torch.equal(codes.view(2 * n, M)[selected.row, selected.latent % M], selected.values)
    assert int((codes > 0).sum()) == len(selected.values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_steps_as_torchs_does(dtype: torch.dtype) -> None:
    mine = [random(30).to(dtype), random(4, 5, seed=1).to(dtype).T]
    theirs = [torch.nn.Parameter(parameter.clone()) for parameter in mine]
    reference = torch.optim.Adam(theirs, betas=(0.8, 0.97))
    adam = Adam(mine, (0.8, 0.97))
    for step in range(1, 6):
        gradients = [random(*parameter.shape, seed=step).to(dtype) for parameter in mine]
        adam.step(gradients, 0.1 / step)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        reference.param_groups[0]["lr"] = 0.1 / step
        reference.step()
    for parameter, their in zip(mine, theirs, strict=True):
        torch.testing.assert_close(parameter, their.data)


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_sparse_and_dense_steps_train_the_same(
    device_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device_type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rows = torch.stack([isotropic(60, 8, generator(seed)) for seed in (0, 1)])
    training = Training(width=24, k=2, steps=60, batch=40, lr=5e-3, dead_after=10)
    models = []
    for bound, device in ((0, "cpu"), (1000, device_type)):
        monkeypatch.setattr(kernel, "DENSE", bound)
        models.append(train(rows.to(device), training, generator(5), title="a test"))
    for name, tensor in models[0].tensors().items():
        torch.testing.assert_close(models[1].tensors()[name].cpu(), tensor)
    assert models[1].W_dec.device.type == device_type


def test_batches_hold_no_row_twice_and_all_rows_come_by() -> None:
    batches = kernel._batches(10, 4, generator(0))
    drawn = [next(batches) for _ in range(40)]
    assert all(batch is not None and len(set(batch.tolist())) == 4 for batch in drawn)
    assert {int(i) for batch in drawn if batch is not None for i in batch} == set(range(10))
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
    training = Training(width=16, k=3, steps=60, batch=64, lr=5e-3)
    model = train(rows, training, generator(0), title="a test")
    codes = model.encode(rows)
    assert (codes > 0).sum(dim=(1, 2)).tolist() == [192, 192]
    torch.testing.assert_close(model.W_dec.norm(dim=2), torch.ones(2, 16))
    guess = model.decode(codes)
    torch.testing.assert_close(guess[1], codes[1] @ model.W_dec[1] + model.b_dec[1])
    largest = model.encode_largest(rows, 3)
    assert int((largest > 0).sum(dim=2).max()) <= 3


def test_small_batches_learn_too() -> None:
    rows = isotropic(64, 16, generator(0)).float()[None]
    training = Training(width=16, k=3, steps=1, batch=20, lr=5e-3)
    before = train(rows, training, generator(0), title="a test")
    after = train(rows, Training(16, 3, 200, 20, 5e-3), generator(0), title="a test")

    def explained(model: MetaSAE) -> float:
        return explained_variance(rows, model.decode(model.encode(rows)), centred=True)[0]

    assert explained(after) > explained(before) + 0.1
    assert 2 < float((after.encode(rows) > 0).double().sum(dim=2).mean()) < 5


def test_one_dictionary_learns_the_same_beside_another() -> None:
    rows = torch.stack([isotropic(40, 8, generator(seed)) for seed in (0, 1)])
    training = Training(width=10, k=2, steps=30, batch=64, lr=5e-3)
    both = train(rows, training, generator(5), title="a test")
    alone = train(rows[1:], training, generator(5), title="a test")
    torch.testing.assert_close(both.W_dec[1:], alone.W_dec)
    torch.testing.assert_close(both.threshold[1:], alone.threshold)


def test_the_threshold_is_the_mean_over_batches_of_the_least_code_chosen() -> None:
    rows = isotropic(50, 8, generator(0))[None]
    enc, b = isotropic(12, 8, generator(1))[None], 0.1 * random(1, 8)
    threshold = kernel._threshold(rows, enc, b, None, 2, 15, generator(2))
    batches, least = kernel._batches(50, 15, generator(2)), []
    for _ in range(kernel.THRESHOLD_BATCHES):
        chosen = next(batches)
        assert chosen is not None
        z = (rows[0][chosen] - b[0]) @ enc[0].T
        largest = sorted(v for v in z.flatten().tolist() if v > 0)[-2 * 15 :]
        least.append(largest[0])
    assert max(least) > min(least) + 0.05
    assert float(threshold[0]) == pytest.approx(sum(least) / len(least), rel=2e-6)


def test_dead_meta_latents_are_revived() -> None:
    aside = 2 * isotropic(1, 16, generator(9))  # most latents start out facing away from the rows
    rows = unit(isotropic(200, 16, generator(0)) + aside).float()[None]

    def dead(dead_after: int) -> int:
        training = Training(60, 1, 400, 1024, 1e-2, dead_after=dead_after)
        model = train(rows, training, generator(3), title="a test")
        return int((model.encode(rows) <= 0).all(dim=1).sum())

    assert dead(400) > dead(20) + 10


def test_the_curve_falls_from_the_first_step_to_the_last() -> None:
    rows = torch.stack([isotropic(64, 16, generator(seed)) for seed in (0, 1)])
    training = Training(width=16, k=3, steps=120, batch=64, lr=5e-3)
    model = train(rows, training, generator(0), title="a test")
    assert model.curve_step is not None
    assert model.curve_loss is not None
    assert model.curve_step[[0, -1]].tolist() == [1, 120]
    assert model.curve_loss.shape == (kernel.CURVE_POINTS, 2)
    start = torch.randn(16, 16, generator=generator(0), dtype=torch.float64)
    start /= start.norm(dim=1, keepdim=True)
    for dictionary in range(2):
        z = rows[dictionary] @ start.T
        codes = torch.where(z >= z.flatten().topk(3 * 64).values[-1], z, 0)
        error = ((rows[dictionary] - codes @ start) ** 2).sum() / 64
        assert float(model.curve_loss[0, dictionary]) == pytest.approx(float(error))
    assert (model.curve_loss[-1] < 0.8 * model.curve_loss[0]).all()
    single = train(rows, Training(16, 3, 1, 64, 5e-3), generator(0), title="a test")
    assert single.curve_step is not None
    assert single.curve_step.tolist() == [1]


def test_its_tensors_are_all_there_is_to_a_meta_sae() -> None:
    rows = torch.stack([isotropic(40, 8, generator(seed)) for seed in (0, 1)])
    model = train(rows, Training(10, 2, 5, 64, 5e-3), generator(5), title="a test")
    reloaded = MetaSAE.of(model.tensors())
    for name, tensor in model.tensors().items():
        assert torch.equal(getattr(reloaded, name), tensor)
    alone = MetaSAE(model.W_enc, model.W_dec, model.b_dec, model.threshold)
    assert list(alone.tensors()) == ["W_enc", "W_dec", "b_dec", "threshold"]
    assert torch.equal(alone.encode(rows), model.encode(rows))
    second = model.one(1)
    torch.testing.assert_close(second.encode(rows[1:]), model.encode(rows)[1:])
    assert second.curve_loss is not None
    assert model.curve_loss is not None
    assert torch.equal(second.curve_loss[:, 0], model.curve_loss[:, 1])


def test_without_unit_norm_rows_only_start_there() -> None:
    rows = isotropic(64, 16, generator(0))[None]
    normed, free = (
        train(
            rows, Training(16, 3, 50, 64, 5e-3, unit_norm=unit_norm), generator(0), title="a test"
        )
        for unit_norm in (True, False)
    )
    torch.testing.assert_close(normed.W_dec.norm(dim=2), torch.ones(1, 16, dtype=torch.float64))
    assert float((free.W_dec.norm(dim=2) - 1).abs().max()) > 0.01
    assert normed.curve_loss is not None
    assert free.curve_loss is not None
    assert torch.equal(normed.curve_loss[0], free.curve_loss[0])


def test_rescaled_gradients_agree_with_autograd() -> None:
    """The codes scale with the decoder rows' norms, rows count by their weights."""
    n, M, d, k, B = 9, 7, 5, 2, 2
    x = random(B, n, d)
    weights = torch.tensor([0.0, 1, 2, 1, 0, 3, 1, 1, 0], dtype=torch.float64)
    training = Training(width=M, k=k, steps=1, batch=n, lr=1.0, rescaled=True, aux_weight=0.0)
    for dense in (True, False):
        fit = kernel.Rescaled(x, training, generator(0))
        fit._dense = dense
        fit.W_enc, fit.W_dec = random(B * M, d, seed=1), 0.3 * random(B * M, d, seed=2)
        fit.b_dec, fit._bias = 0.1 * random(B, d, seed=3), 0.2 * random(B * M, seed=4)
        leaves = [t.clone().requires_grad_() for t in (fit.W_enc, fit.W_dec, fit.b_dec, fit._bias)]
        taken: list[Tensor] = []

        class Catch:
            def step(
                self, gradients: tuple[Tensor, ...], lr: float, to: list[Tensor] = taken
            ) -> None:
                to.extend(gradients)

        fit._adam = Catch()  # type: ignore[assignment]
        rebuilt = fit.step(x, weights)
        loss = torch.zeros((), dtype=torch.float64)
        losses = []
        for dictionary in range(B):
            latents = slice(dictionary * M, dictionary * M + M)
            E, D, b, c = (
                leaves[0][latents],
                leaves[1][latents],
                leaves[2][dictionary],
                leaves[3][latents],
            )
            r = D.norm(dim=1)
            z = r * ((x[dictionary] - b) @ E.T + c)
            ordered = sorted(
                ((float(z[i, j].detach()), float(weights[i])) for i in range(n) for j in range(M)),
                reverse=True,
            )
            weight, least = 0.0, 0.0
            for value, count in ordered:
                if weight >= k * n or value <= 0:
                    break
                if count:
                    weight, least = weight + count, value
            codes = torch.where(z >= least, z, 0)
            error = ((codes @ (D / r[:, None]) + b - x[dictionary]) ** 2).sum(dim=1)
            losses.append(float((weights * error.detach()).sum() / n))
            loss = loss + (weights * error).sum() / n
        loss.backward()
        for mine, theirs in zip(taken, leaves, strict=True):
            assert theirs.grad is not None
            torch.testing.assert_close(mine.view_as(theirs), theirs.grad)
        measured = kernel._loss(rebuilt, weights)
        torch.testing.assert_close(measured, torch.tensor(losses, dtype=torch.float64))


def test_rows_drawn_with_replacement_count_as_often_as_they_come() -> None:
    """A weighted batch and one that holds its rows several times teach the same."""
    rows = isotropic(30, 8, generator(0))[None]
    training = Training(
        8, 2, 6, 50, 5e-3, aux_weight=0.0, unit_norm=False, start_norm=0.1, rescaled=True,
        replacement=True,
    )  # fmt: skip
    model = train(rows, training, generator(5), title="a test")
    draws = generator(5)
    fit = kernel.Rescaled(rows, training, draws)
    for _ in range(6):
        fit.step(rows[:, torch.randint(0, 30, (50,), generator=draws)])
    W_enc, W_dec, b_enc = fit.weights()
    torch.testing.assert_close(model.W_enc[0], W_enc, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.W_dec[0], W_dec, rtol=1e-4, atol=1e-6)
    assert model.b_enc is not None
    assert float(model.b_enc.abs().max()) > 1e-4
    torch.testing.assert_close(model.b_enc[0], b_enc, rtol=1e-4, atol=1e-6)
    z = (rows - model.b_dec[:, None]) @ model.W_enc.transpose(1, 2) + model.b_enc[:, None]
    torch.testing.assert_close(model.encode(rows), torch.where(z >= model.threshold, z, 0))


def test_a_large_dictionarys_batches_hold_each_row_once_with_its_weight() -> None:
    chosen, weights = next(kernel._with_replacement(1000, 50, generator(1)))
    assert chosen is not None
    assert weights is not None
    drawn = torch.randint(0, 1000, (50,), generator=generator(1))
    assert chosen.tolist() == sorted(set(drawn.tolist()))
    counts = [drawn.tolist().count(row) for row in chosen.tolist()]
    torch.testing.assert_close(weights, torch.tensor(counts) * (len(counts) / 50))
    assert float(weights.mean()) == pytest.approx(1.0)
