"""Fidelity agrees with plain loops, has known values on known SAEs, and says who is unfit."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import brute_force
import pytest
import torch
from brute_force import CodedSAE, TinySAE, random_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import value

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.reconstruction import mean_and_covariance, reconstruction_sums
from saebench_canon.kernels.resampling import Ratio, documents, ratio, reaches_zero
from saebench_canon.metrics.fidelity.metric import fidelity
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.metric import Measurement, Undefined, Value
from saebench_canon.saes.fold import fold


def data(n: int = 60, d: int = 8, seed: int = 0) -> Acts:
    g = torch.Generator().manual_seed(seed)
    spread = torch.linspace(2, 0.3, d, dtype=torch.float64)
    x = torch.randn(n, d, generator=g, dtype=torch.float64) * spread + 0.5
    return Acts(x, torch.arange(n) // 7 * 10)


def measure(sae: Any, codes: Codes, acts: Acts, loss: Any = None, **more: Any) -> Measurement:
    measurement = fidelity.measure(sae, codes, acts, loss, **more)
    assert isinstance(measurement, Measurement)
    return measurement


@pytest.mark.parametrize("kind", ["relu", "topk", "batchtopk"])
def test_every_score_agrees_with_the_plain_definition(kind: str) -> None:
    acts = data()
    example = random_sae(acts.x, 12, kind, torch.Generator().manual_seed(1))
    measurement = measure(example.sae, example.codes, acts)
    guess, x = brute_force.rebuilt(example), acts.x
    spread = float(((x - x.mean(0)) ** 2).sum())
    expected = {
        "mse": brute_force.mse(x, guess),
        "explained_variance": 1 - float(((x - guess) ** 2).sum()) / spread,
        "cosine": sum(brute_force.cosine(a, b) for a, b in zip(x, guess, strict=True)) / len(x),
        "l0": float((example.dense > 0).sum(1).double().mean()),
        "dead_share": 1 - len(brute_force.live(example)) / 12,
        "shrinkage": float((guess * x).sum() / (guess**2).sum()),
    }
    k = round(expected["l0"])
    singular = torch.linalg.svdvals(x - x.mean(0))
    expected["pca_explained_variance"] = float((singular[:k] ** 2).sum() / (singular**2).sum())
    for name, number in expected.items():
        assert value(measurement, name) == pytest.approx(number, rel=1e-5), name
    assert value(measurement, "dead_share") > 0
    table = measurement.tables["latents"]
    assert table["density"].tolist() == pytest.approx((example.dense > 0).double().mean(0).tolist())


def test_standard_errors_are_the_delta_methods_over_documents() -> None:
    acts = data()
    example = random_sae(acts.x, 12, "relu", torch.Generator().manual_seed(1))
    measurement = measure(example.sae, example.codes, acts)
    error = ((acts.x - brute_force.rebuilt(example)) ** 2).sum(1)
    spread = ((acts.x - acts.x.mean(0)) ** 2).sum(1)
    docs = sorted(set(acts.doc.tolist()))
    a = [float(error[acts.doc == doc].sum()) for doc in docs]
    b = [float(spread[acts.doc == doc].sum()) for doc in docs]
    score = measurement.scores["explained_variance"]
    assert isinstance(score, Value)
    quotient, stderr = brute_force.ratio_by_documents(a, b)
    assert score.value == pytest.approx(1 - quotient)
    assert score.stderr == pytest.approx(stderr)
    assert (score.n, score.unit) == (len(docs), "document")


def test_the_delta_method_agrees_with_a_document_bootstrap() -> None:
    g = torch.Generator().manual_seed(0)
    b = torch.rand(200, generator=g, dtype=torch.float64) + 0.5
    a = b * 0.3 + torch.randn(200, generator=g, dtype=torch.float64) * 0.1
    draws = torch.randint(0, 200, (4000, 200), generator=g)
    bootstrap = float((a[draws].sum(1) / b[draws].sum(1)).std())
    assert ratio(a, b).stderr == pytest.approx(bootstrap, rel=0.05)


def test_one_document_gives_no_standard_error() -> None:
    acts = data()
    example = random_sae(acts.x, 12, "relu", torch.Generator().manual_seed(1))
    measurement = measure(
        example.sae, example.codes, Acts(acts.x, torch.zeros(len(acts), dtype=torch.int64))
    )
    score = measurement.scores["explained_variance"]
    assert isinstance(score, Value)
    assert score.stderr is None
    assert score.n == 1


def test_predicting_the_mean_explains_exactly_nothing() -> None:
    acts = data()
    mean, _ = mean_and_covariance(acts.x)
    rows = torch.eye(8, dtype=torch.float64)
    codes = Codes.from_dense(torch.zeros(len(acts), 8, dtype=torch.float64))
    measurement = measure(TinySAE(rows, mean), codes, acts)
    assert value(measurement, "explained_variance") == 0.0
    assert value(measurement, "l0") == 0
    assert value(measurement, "dead_share") == 1
    assert value(measurement, "pca_explained_variance") == 0
    assert {mark.kind for mark in measurement.marks} == {"unfit"}


def test_an_identity_sae_reconstructs_exactly_and_is_unfit_for_its_l0() -> None:
    acts = data()
    rows = torch.cat([torch.eye(8, dtype=torch.float64), -torch.eye(8, dtype=torch.float64)])
    codes = Codes.from_dense(torch.cat([acts.x, -acts.x], dim=1).relu())
    tiny = TinySAE(rows, torch.zeros(8, dtype=torch.float64))
    measurement = measure(tiny, codes, acts, least_d=8)
    assert value(measurement, "mse") == pytest.approx(0, abs=1e-20)
    assert value(measurement, "explained_variance") == pytest.approx(1)
    assert value(measurement, "cosine") == pytest.approx(1)
    assert value(measurement, "shrinkage") == pytest.approx(1)
    assert [mark.reason for mark in measurement.marks if mark.kind == "unfit"] == [
        "L0 8.0 is not below 2"
    ]
    in_few_dimensions = measure(tiny, codes, acts).marks
    assert [(mark.kind, mark.reason) for mark in in_few_dimensions] == [
        ("caveat", "L0 8.0 is not below 2")
    ]


def test_dead_rows_are_unfit_duplicates_are_not_and_few_components_are_a_caveat() -> None:
    acts = data()
    example = random_sae(acts.x, 12, "topk", torch.Generator().manual_seed(1), dead=range(8))
    twice = TinySAE(example.sae.W_dec.clone(), example.sae.b_dec)
    twice.W_dec[9] = twice.W_dec[8]
    measurement = measure(twice, example.codes, acts, max_l0=9.0, min_explained_variance=-math.inf)
    assert [mark.reason for mark in measurement.marks if mark.kind == "unfit"] == [
        "live share 0.33 is below 0.5",
    ]
    assert value(measurement, "duplicates") == 1
    assert any(
        mark.kind == "caveat" and "principal components" in mark.reason
        for mark in measurement.marks
    )


def test_rows_show_a_common_direction_and_how_encoders_lie_to_them() -> None:
    rows = torch.tensor([[0.8, 0.6], [0.8, -0.6]])
    aside = torch.tensor([[0.6, -0.8], [0.8, -0.6]])  # the first at a right angle to its row
    sae = fold(W_enc=aside.T, W_dec=rows, b_dec=torch.zeros(2), b_enc=None)
    acts = Acts(torch.tensor([[1.0, 0.0], [1.0, -1.0], [2.0, 0.5]]), torch.arange(3))
    measurement = measure(sae, sae.encode_sparse(acts.x), acts)
    assert value(measurement, "mean_row_norm") == pytest.approx(0.8)
    assert value(measurement, "encoder_alignment") == pytest.approx(0.5)
    assert value(measurement, "duplicates") == 0


def test_activations_that_do_not_vary_leave_the_explained_variance_undefined() -> None:
    acts = Acts(torch.ones(5, 3), torch.arange(5))
    sae = TinySAE(torch.eye(3), torch.ones(3))
    measurement = measure(sae, Codes.from_dense(torch.zeros(5, 3)), acts)
    assert isinstance(measurement.scores["explained_variance"], Undefined)
    assert "unfit" in {mark.kind for mark in measurement.marks}


def losses(gap: float, seed: int = 0) -> SimpleNamespace:
    g = torch.Generator().manual_seed(seed)
    count = torch.tensor([5, 9, 0, 7, 6, 8])
    clean = count * 2.0 + torch.randn(6, generator=g, dtype=torch.float64) * (count > 0)
    zero = clean + gap * count + torch.randn(6, generator=g, dtype=torch.float64) * (count > 0)
    sae = clean + 0.25 * (zero - clean)
    return SimpleNamespace(ce_clean=clean, ce_sae=sae, ce_zero=zero, ce_mean=zero, count=count)


def test_loss_recovered_is_a_ratio_of_totals() -> None:
    acts = data()
    example = random_sae(acts.x, 12, "relu", torch.Generator().manual_seed(1))
    score = measure(example.sae, example.codes, acts, losses(3.0)).scores["loss_recovered"]
    assert isinstance(score, Value)
    assert score.value == pytest.approx(0.75)
    assert score.n == 5
    without = measure(example.sae, example.codes, acts).scores["loss_recovered"]
    assert without == Undefined("no language model at hand")
    noise = measure(example.sae, example.codes, acts, losses(0.0)).scores["loss_recovered"]
    assert isinstance(noise, Undefined)


def test_an_interval_reaches_zero_with_its_lower_end() -> None:
    assert reaches_zero(Ratio(0.1, 0.1, 10))
    assert not reaches_zero(Ratio(0.5, 0.1, 10))
    assert reaches_zero(Ratio(-0.5, 0.1, 10))
    assert reaches_zero(Ratio(0.0, None, 1))
    assert not reaches_zero(Ratio(0.1, None, 1))


def test_a_model_that_zero_ablation_does_not_hurt_has_no_loss_to_recover() -> None:
    acts = data()
    example = random_sae(acts.x, 12, "relu", torch.Generator().manual_seed(1))
    for gap in (-3.0, 0.0):
        score = measure(example.sae, example.codes, acts, losses(gap)).scores["loss_recovered"]
        assert score == Undefined("zero-ablation costs no loss beyond noise")


def uneven(sae: list[float]) -> SimpleNamespace:
    """Losses of four documents of unlike length and cost; zero-ablation costs 3, 8, 3, 22 nats."""
    count = torch.tensor([4, 10, 5, 20])
    clean = torch.tensor([10.0, 25.0, 13.0, 50.0], dtype=torch.float64)
    zero = clean + torch.tensor([3.0, 8.0, 3.0, 22.0], dtype=torch.float64)
    mean = clean + torch.tensor([1.0, 2.0, 1.5, 9.0], dtype=torch.float64)
    of_sae = torch.tensor(sae, dtype=torch.float64)
    return SimpleNamespace(ce_clean=clean, ce_sae=of_sae, ce_zero=zero, ce_mean=mean, count=count)


def test_loss_recovered_is_of_the_zero_ablated_total_not_a_mean_over_documents() -> None:
    acts = data()
    example = random_sae(acts.x, 12, "relu", torch.Generator().manual_seed(1))
    loss = uneven([11.5, 26.0, 16.0, 54.0])
    score = measure(example.sae, example.codes, acts, loss).scores["loss_recovered"]
    assert isinstance(score, Value)
    assert score.value == pytest.approx(1 - (1.5 + 1 + 3 + 4) / 36)
    quotient, stderr = brute_force.ratio_by_documents([1.5, 7.0, 0.0, 18.0], [3.0, 8.0, 3.0, 22.0])
    assert score.value == pytest.approx(quotient)
    assert score.stderr == pytest.approx(stderr)


def test_the_record_keeps_every_cross_entropy_with_its_error() -> None:
    acts = data()
    example = random_sae(acts.x, 12, "relu", torch.Generator().manual_seed(1))
    loss = uneven([11.5, 26.0, 16.0, 54.0])
    table = measure(example.sae, example.codes, acts, loss).tables["losses"]
    assert table["model"].tolist() == ["clean", "sae", "zero", "mean"]
    assert table["documents"].tolist() == [4] * 4
    totals = (loss.ce_clean, loss.ce_sae, loss.ce_zero, loss.ce_mean)
    for (_, line), total in zip(table.iterrows(), totals, strict=True):
        value, stderr = brute_force.ratio_by_documents(total.tolist(), loss.count.tolist())
        assert line["cross_entropy"] == pytest.approx(value)
        assert line["stderr"] == pytest.approx(stderr)
    assert table["cross_entropy"][0] == pytest.approx(98 / 39)
    assert "losses" not in measure(example.sae, example.codes, acts).tables


def test_what_an_sae_costs_does_not_decide_whether_there_is_loss_to_recover() -> None:
    acts = data()
    example = random_sae(acts.x, 12, "relu", torch.Generator().manual_seed(1))
    useless = losses(3.0)
    useless.ce_sae = useless.ce_zero.clone()
    score = measure(example.sae, example.codes, acts, useless).scores["loss_recovered"]
    assert isinstance(score, Value)
    assert score.value == 0
    perfect = losses(0.0)
    perfect.ce_sae = perfect.ce_clean - 3.0 * perfect.count
    recovered = measure(example.sae, example.codes, acts, perfect).scores["loss_recovered"]
    assert isinstance(recovered, Undefined)


BY_POSITION = {
    "explained_variance_at_0": (0, 0), "explained_variance_at_1_to_3": (1, 3),
    "explained_variance_at_4_to_15": (4, 15), "explained_variance_from_16": (16, 99),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["relu", "topk", "batchtopk"])
def test_explained_variance_by_position_is_that_of_these_tokens_alone(kind: str) -> None:
    acts = data(120)
    acts.x[::20] *= 40  # position 0 dwarfs the others
    where = torch.arange(120) % 20
    example = random_sae(acts.x, 12, kind, torch.Generator().manual_seed(1))
    measurement = measure(example.sae, example.codes, acts, positions=where)
    guess = brute_force.rebuilt(example)
    for name, (first, last) in BY_POSITION.items():
        chosen = [at for at in range(120) if first <= at % 20 <= last]
        x, rebuilt, doc = acts.x[chosen], guess[chosen], acts.doc[chosen].tolist()
        error = ((x - rebuilt) ** 2).sum(1).tolist()
        spread = ((x - x.mean(0)) ** 2).sum(1).tolist()
        sums = [
            [sum(v for v, d in zip(values, doc, strict=True) if d == document)
             for document in sorted(set(doc))]
            for values in (error, spread)
        ]  # fmt: skip
        quotient, stderr = brute_force.ratio_by_documents(*sums)
        score = measurement.scores[name]
        assert isinstance(score, Value)
        assert score.value == pytest.approx(1 - quotient, rel=1e-5)
        assert score.stderr == pytest.approx(stderr, rel=1e-5)
        assert score.n == len(set(doc))


def test_positions_without_a_token_or_unknown_are_undefined() -> None:
    acts = data()
    example = random_sae(acts.x, 12, "relu", torch.Generator().manual_seed(1))
    unknown = measure(example.sae, example.codes, acts)
    some = measure(example.sae, example.codes, acts, positions=1 + torch.arange(len(acts)) % 3)
    for name in BY_POSITION:
        assert isinstance(unknown.scores[name], Undefined)
        assert isinstance(some.scores[name], Undefined) != (name == "explained_variance_at_1_to_3")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from(["relu", "topk", "batchtopk"]))
def test_scores_do_not_depend_on_order_scale_or_dead_latents(seed: int, kind: str) -> None:
    acts = data(40, 5, seed)
    g = torch.Generator().manual_seed(seed)
    original = random_sae(acts.x, 9, kind, g, dead=(2,))
    order = torch.randperm(9, generator=g)
    changed = CodedSAE(
        TinySAE(original.sae.W_dec[order], original.sae.b_dec), original.dense[:, order]
    )
    where = torch.arange(len(acts)) % 20
    before, after = (
        measure(example.sae, example.codes, acts, positions=where)
        for example in (original, changed)
    )
    rows = torch.cat([original.sae.W_dec, torch.randn(3, 5, generator=g, dtype=torch.float64)])
    silent = torch.cat([original.dense, torch.zeros(len(acts), 3, dtype=torch.float64)], dim=1)
    grown_sae, silent_codes = TinySAE(rows, original.sae.b_dec), Codes.from_dense(silent)
    grown = measure(grown_sae, silent_codes, acts, positions=where)
    for name in before.scores:
        if name in ("loss_recovered", "encoder_alignment"):
            continue
        assert value(after, name) == pytest.approx(value(before, name), abs=1e-9), name
        if name != "dead_share":
            assert value(grown, name) == pytest.approx(value(before, name), abs=1e-9), name


def test_chunks_do_not_show() -> None:
    acts = data()
    example = random_sae(acts.x, 12, "topk", torch.Generator().manual_seed(1))
    index, count = documents(acts.doc)
    one_chunk, small_chunks = (
        reconstruction_sums(
            acts.x,
            index,
            count,
            example.codes,
            example.sae.W_dec,
            example.sae.b_dec,
            components=3,
            size=size,
        )
        for size in (1000, 7)
    )
    for name in ("error", "spread", "principal", "cosine", "active"):
        torch.testing.assert_close(getattr(one_chunk, name), getattr(small_chunks, name))
