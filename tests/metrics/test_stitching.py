"""Stitching agrees with plain recomputation and keeps the invariants of its definition."""

from __future__ import annotations

from typing import Any

import brute_force
import pytest
import torch
from brute_force import CodedSAE, TinySAE, random_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import value

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.nnomp import pursue
from saebench_canon.kernels.resampling import documents
from saebench_canon.metrics.fidelity.metric import fidelity
from saebench_canon.metrics.stitching.adding import (
    Stitched,
    delta_mse,
    share_of_small,
    stitch,
    stitched_bias,
)
from saebench_canon.metrics.stitching.metric import NEEDS_DATA, NEEDS_PEERS, stitching
from saebench_canon.metrics.stitching.roc import auc, best_threshold
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.metric import Measurement, Undefined, Value
from saebench_canon.saes.fold import fold

KINDS = ["relu", "topk", "batchtopk", "jumprelu"]


def pair(kind: str, seed: int = 0, n: int = 40, d: int = 6) -> tuple[Acts, CodedSAE, CodedSAE]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    small = random_sae(x, 7, kind, g, dead=(1,))
    rows = torch.randn(11, d, generator=g, dtype=torch.float64)
    rows[:3] = small.sae.W_dec[2:5] + 0.1 * rows[:3]
    return Acts(x, torch.arange(n) // 5), small, random_sae(x, 11, kind, g, dead=(0, 9), rows=rows)


def measure(acts: Acts | None, small: CodedSAE, large: CodedSAE, **more: Any) -> Measurement:
    codes = (None, None) if acts is None else (small.codes, large.codes)
    measurement = stitching.measure(small.sae, large.sae, *codes, acts, **more)
    assert isinstance(measurement, Measurement)
    return measurement


def passed(
    acts: Acts,
    small: CodedSAE,
    large: CodedSAE,
    added: list[int],
    remaining: list[int] | None = None,
) -> Stitched:
    index, count = documents(acts.doc)
    mask = torch.zeros(large.sae.width, dtype=torch.bool)
    mask[added] = True
    mask0 = None
    if remaining is not None:
        mask0 = torch.zeros(small.sae.width, dtype=torch.bool)
        mask0[remaining] = True
    both = [(example.codes, example.sae.W_dec, example.sae.b_dec) for example in (small, large)]
    return stitch(acts.x, index, count, both[0], both[1], mask, remaining=mask0, size=7)


@pytest.mark.parametrize("kind", KINDS)
def test_every_score_and_column_agrees_with_plain_recomputation(kind: str) -> None:
    acts, small, large = pair(kind)
    measurement = measure(acts, small, large)
    x, live0, live1 = acts.x, brute_force.live(small), brute_force.live(large)
    best, which = brute_force.max_cosines(large.sae.W_dec[live1], small.sae.W_dec[live0])
    back, _ = brute_force.max_cosines(small.sae.W_dec[live0], large.sae.W_dec[live1])
    base = brute_force.mse(x, brute_force.rebuilt(small))
    deltas = {
        fixed: [
            brute_force.mse(x, brute_force.stitched(small, large, live0, [i], fixed_bias=fixed))
            - base
            for i in live1
        ]
        for fixed in (False, True)
    }
    novel = [i for i, cos in zip(live1, best, strict=True) if cos < 0.7]
    assert 0 < len(novel) < len(live1)
    everything = brute_force.mse(x, brute_force.stitched(small, large, live0, novel))
    spans = [brute_force.pursuit(large.sae.W_dec[i], small.sae.W_dec[live0], 4) for i in live1]
    helps = [delta < 0 for delta in deltas[True]]
    expected = {
        "small_mse": base,
        "large_mse": brute_force.mse(x, brute_force.rebuilt(large)),
        "novel_share": len(novel) / len(live1),
        "novel_gain": 1 - everything / base,
        "helpful_share": sum(helps) / len(live1),
        "helpful_share_eq5": sum(delta < 0 for delta in deltas[False]) / len(live1),
        "orphan_share": sum(cos < 0.7 for cos in back) / len(live0),
        "span_residual": sum(1 - shares[-1] for shares in spans) / len(live1),
    }
    for name, number in expected.items():
        assert value(measurement, name) == pytest.approx(number, rel=1e-5, abs=1e-12), name
    if 0 < sum(helps) < len(helps):
        assert value(measurement, "auc") == pytest.approx(brute_force.auc(best, helps))
        threshold = value(measurement, "best_threshold")
        tries = [brute_force.youden(best, helps, level) for level in [*best, 2.0]]
        assert brute_force.youden(best, helps, threshold) == pytest.approx(max([0.0, *tries]))
    else:
        assert isinstance(measurement.scores["auc"], Undefined)
    table = measurement.tables["latents"]
    assert table["latent"].tolist() == live1
    assert table["max_cos"].tolist() == pytest.approx(best, abs=1e-6)
    assert table["nearest"].tolist() == [live0[j] for j in which]
    assert table["delta_mse"].tolist() == pytest.approx(deltas[False], rel=1e-5, abs=1e-12)
    assert table["delta_mse_fixed_bias"].tolist() == pytest.approx(
        deltas[True], rel=1e-5, abs=1e-12
    )
    assert table["novel"].tolist() == [i in novel for i in live1]
    density = (large.dense[:, live1] > 0).double().mean(0)
    assert table["density"].tolist() == pytest.approx(density.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_rescaled_errors_are_those_of_the_best_factor(kind: str) -> None:
    acts, small, large = pair(kind)
    measurement = measure(acts, small, large)
    for name, example in (("small_mse", small), ("large_mse", large)):
        added = brute_force.rebuilt(example) - example.sae.b_dec
        factors = torch.linspace(0, 3, 3001, dtype=torch.float64)
        tries = [brute_force.mse(acts.x, example.sae.b_dec + s * added) for s in factors]
        assert value(measurement, f"{name}_rescaled") == pytest.approx(min(tries), rel=1e-5)
        assert min(tries) <= value(measurement, name)


def test_shrunken_codes_do_not_change_rescaled_errors() -> None:
    acts, small, large = pair("relu")
    shrunken = CodedSAE(large.sae, large.dense / 3)
    original, shrunk = measure(acts, small, large), measure(acts, small, shrunken)
    assert value(shrunk, "large_mse") != value(original, "large_mse")
    for name in ("small_mse_rescaled", "large_mse_rescaled"):
        assert value(shrunk, name) == pytest.approx(value(original, name))


def test_what_latents_add_at_their_best_scales_does_not_depend_on_the_scale_of_either_sae() -> None:
    acts, small, large = pair("relu", n=200)
    gain = value(measure(acts, small, large), "residual_gain")
    assert gain > 0.01
    for below, above in ((0.5, 1), (1, 1 / 3), (3, 2)):
        scaled = CodedSAE(small.sae, below * small.dense), CodedSAE(large.sae, above * large.dense)
        assert value(measure(acts, *scaled), "residual_gain") == pytest.approx(gain, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_no_large_latent_gives_the_small_sae_and_all_without_small_ones_the_large(
    kind: str,
) -> None:
    acts, small, large = pair(kind)
    none = passed(acts, small, large, [])
    torch.testing.assert_close(none.stitched, none.small, rtol=1e-12, atol=0)
    everything = passed(acts, small, large, list(range(11)), remaining=[])
    torch.testing.assert_close(everything.stitched, everything.large, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_any_stitched_point_equals_full_recomputation(kind: str) -> None:
    acts, small, large = pair(kind, seed=3)
    live0, live1 = brute_force.live(small), brute_force.live(large)
    point = passed(acts, small, large, live1[::2], remaining=live0[1:])
    guess = brute_force.stitched(small, large, live0[1:], live1[::2])
    expected = brute_force.mse(acts.x, guess)
    assert float(point.stitched.sum()) / acts.x.numel() == pytest.approx(expected)


def test_dead_latents_that_are_added_do_not_move_the_bias() -> None:
    acts, small, large = pair("relu")
    live1 = brute_force.live(large)
    without_dead, with_dead = (
        passed(acts, small, large, added) for added in (live1, list(range(11)))
    )
    assert torch.equal(without_dead.stitched, with_dead.stitched)


@pytest.mark.parametrize("kind", KINDS)
def test_an_sae_against_itself_has_nothing_novel(kind: str) -> None:
    acts, small, _ = pair(kind)
    measurement = measure(acts, small, small)
    assert value(measurement, "novel_share") == 0
    assert value(measurement, "novel_gain") == 0
    assert value(measurement, "orphan_share") == 0
    assert value(measurement, "span_residual") == pytest.approx(0, abs=1e-12)


def test_a_duplicated_latent_of_a_fitted_sae_has_cosine_one_and_raises_the_mse() -> None:
    rows = torch.eye(4, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    codes = torch.rand(30, 4, generator=g, dtype=torch.float64) + 0.5
    small = CodedSAE(TinySAE(rows[:3], torch.zeros(4, dtype=torch.float64)), codes[:, :3])
    large = CodedSAE(TinySAE(rows, torch.zeros(4, dtype=torch.float64)), codes)
    acts = Acts(codes @ rows, torch.arange(30))
    measurement = measure(acts, small, large)
    table = measurement.tables["latents"]
    assert table["max_cos"].tolist() == [1, 1, 1, 0]
    assert (table["delta_mse"][:3] > 0).all()
    assert table["delta_mse"][3] < 0
    assert value(measurement, "novel_gain") == pytest.approx(1)
    assert value(measurement, "auc") == 1
    assert value(measurement, "best_threshold") == pytest.approx(0.5)


def test_without_activations_only_decoders_speak() -> None:
    _, small, large = pair("relu")
    measurement = measure(None, small, large)
    assert {name for name, s in measurement.scores.items() if isinstance(s, Undefined)} == {
        *NEEDS_DATA,
        *NEEDS_PEERS,
    }
    assert len(measurement.tables["latents"]) == 11
    assert measurement.marks[0].kind == "note"
    assert set(measurement.scores) == {score.name for score in stitching.scores}


def test_a_dictionary_without_a_live_latent_is_undefined() -> None:
    acts, small, large = pair("relu")
    dead = CodedSAE(small.sae, torch.zeros_like(small.dense))
    measurement = measure(acts, dead, large)
    assert all(isinstance(score, Undefined) for score in measurement.scores.values())
    assert set(measurement.scores) == {score.name for score in stitching.scores}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.sampled_from(KINDS))
def test_scores_do_not_depend_on_order_scale_or_dead_latents(seed: int, kind: str) -> None:
    acts, small, large = pair(kind, seed)
    g = torch.Generator().manual_seed(seed)

    def change(example: CodedSAE, bias: torch.Tensor) -> CodedSAE:
        order = torch.randperm(example.sae.width, generator=g)
        rows = torch.cat(
            [example.sae.W_dec[order], torch.randn(2, 6, generator=g, dtype=torch.float64)]
        )
        scale = torch.rand(len(rows), 1, generator=g, dtype=torch.float64) * 7 + 0.1
        unit = rows * scale
        unit = unit / unit.norm(dim=1, keepdim=True)
        dense = torch.cat(
            [example.dense[:, order], torch.zeros(len(acts), 2, dtype=torch.float64)], 1
        )
        return CodedSAE(TinySAE(unit, bias), dense)

    before = measure(acts, small, large)
    after = measure(acts, change(small, small.sae.b_dec), change(large, large.sae.b_dec))
    for name, score in before.scores.items():
        if isinstance(score, Undefined):
            assert isinstance(after.scores[name], Undefined)
        else:
            assert value(after, name) == pytest.approx(value(before, name), rel=1e-6, abs=1e-9), (
                name
            )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=12),
)
def test_auc_and_threshold_agree_with_the_loops_also_on_ties(pairs: list[tuple[int, bool]]) -> None:
    low = [number / 5 for number, _ in pairs]
    hits = [hit for _, hit in pairs]
    area = auc(torch.tensor(low, dtype=torch.float64), torch.tensor(hits))
    cut = best_threshold(torch.tensor(low, dtype=torch.float64), torch.tensor(hits))
    if all(hits) or not any(hits):
        assert area is None
        assert cut is None
        return
    assert area is not None
    assert cut is not None
    assert area == pytest.approx(brute_force.auc(low, hits))
    best = max(brute_force.youden(low, hits, threshold) for threshold in [*low, 2.0])
    assert brute_force.youden(low, hits, cut) == pytest.approx(best)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 12), st.integers(2, 9), st.integers(1, 5))
def test_pursuit_agrees_with_one_row_at_a_time(seed: int, atoms: int, d: int, count: int) -> None:
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(6, d, generator=g, dtype=torch.float64) * 3
    table = torch.randn(atoms, d, generator=g, dtype=torch.float64)
    fitted = pursue(rows, table, count=count, block=2 * atoms)
    for i, row in enumerate(rows):
        assert fitted.explained[i].tolist() == pytest.approx(
            brute_force.pursuit(row, table, count), abs=1e-7
        )
        chosen = fitted.atoms[i][fitted.atoms[i] >= 0]
        assert len(set(chosen.tolist())) == len(chosen)
        unit = table[chosen] / table[chosen].norm(dim=1, keepdim=True)
        weights = fitted.weights[i][fitted.atoms[i] >= 0]
        assert (weights >= 0).all()
        residual = row / row.norm() - weights @ unit
        assert float(residual @ residual) == pytest.approx(float(fitted.residual[i]), abs=1e-9)


def test_pursuit_stops_at_an_opposite_row_and_takes_duplicated_atoms_calmly() -> None:
    atoms = torch.eye(4)[:2].repeat(3, 1)
    rows = torch.tensor([[-1.0, -1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [3, 1, 0, 0]])
    fitted = pursue(rows, atoms)
    assert fitted.explained[:, -1].tolist() == pytest.approx([0, 1, 0, 1], abs=1e-9)
    assert fitted.atoms[0].tolist() == [-1, -1, -1, -1]
    assert (fitted.atoms[1] >= 0).sum() == 2


def test_sums_of_small_rows_leave_nothing_and_random_rows_as_much_as_published() -> None:
    g = torch.Generator().manual_seed(0)
    small = torch.randn(128, 64, generator=g)
    small = small / small.norm(dim=1, keepdim=True)
    picks = torch.stack([torch.randperm(128, generator=g)[:3] for _ in range(60)])
    sums = small[picks].sum(dim=1)
    assert float(pursue(sums, small).residual.max()) < 0.1
    assert float(pursue(sums, small).residual.median()) < 0.04
    random = torch.randn(200, 64, generator=g)
    assert 0.55 < float(pursue(random, small).residual.mean()) < 0.75


def test_an_sae_against_itself_gains_exactly_nothing() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, 24, generator=g) * 100 + 1_000
    sae = fold(
        W_enc=torch.randn(24, 60, generator=g),
        W_dec=torch.randn(60, 24, generator=g),
        b_dec=1_000 + torch.randn(24, generator=g),
        apply_b_dec_to_input=True,
    )
    codes = sae.encode_sparse(x)
    measurement = stitching.measure(sae, sae, codes, codes, Acts(x, torch.arange(500) // 10))
    assert isinstance(measurement, Measurement)
    gain = measurement.scores["novel_gain"]
    assert isinstance(gain, Value)
    assert (gain.value, gain.stderr) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"threshold": 1.5}, "threshold must be a cosine, −1 to 1, got 1.5"),
        ({"threshold": -2}, "threshold must be a cosine, −1 to 1, got -2"),
        ({"threshold": float("nan")}, "threshold must be a cosine, −1 to 1, got nan"),
        ({"span_atoms": 0}, "span_atoms must be 1 or more, got 0"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    acts, small, large = pair("relu")
    with pytest.raises(CanonError, match="stitching") as caught:
        stitching.measure(small.sae, large.sae, small.codes, large.codes, acts, **settings)
    assert sentence in str(caught.value)


def test_the_biases_at_both_ends_are_exact() -> None:
    small, large = torch.tensor([0.1, 0.2]), torch.tensor([0.7, -3.0])
    assert torch.equal(stitched_bias(small, large, share_of_small(4, 0)), small.double())
    assert torch.equal(stitched_bias(small, large, share_of_small(0, 4)), large.double())
    assert share_of_small(0, 0) == 1.0


def test_a_silent_latent_changes_the_mse_by_the_bias_alone() -> None:
    acts, small, large = pair("relu")
    moments = passed(acts, small, large, [])
    live0 = brute_force.live(small)
    shift = (1 - share_of_small(len(live0), 1)) * (large.sae.b_dec - small.sae.b_dec)
    delta = delta_mse(moments, large.sae.W_dec, shift)
    base = brute_force.mse(acts.x, brute_force.rebuilt(small))
    silent = brute_force.mse(acts.x, brute_force.stitched(small, large, live0, [0])) - base
    assert float(delta[0]) == pytest.approx(silent)
    assert isinstance(small.codes, Codes)


@pytest.mark.parametrize("activation", ["relu", "topk", "jumprelu"])
def test_row_norms_of_stored_parameters_change_no_score(activation: Any) -> None:
    acts, _, _ = pair("relu", n=80)
    x = acts.x.float()

    def folded(m: int, seed: int, *, rescaled: bool) -> tuple[Any, Codes]:
        g = torch.Generator().manual_seed(seed)
        W_dec, b_dec = torch.randn(m, 6, generator=g), torch.randn(6, generator=g) * 0.2
        W_enc, b_enc = W_dec.T * 0.2, torch.randn(m, generator=g) * 0.1
        scale = torch.rand(m, generator=g) * 4 + 0.2 if rescaled else torch.ones(m)
        sae = fold(
            W_enc=W_enc / scale,
            b_enc=b_enc / scale,
            W_dec=W_dec * scale[:, None],
            b_dec=b_dec,
            activation=activation,
            rescale=activation == "topk",
            k=3 if activation == "topk" else None,
            threshold=0.1 / scale if activation == "jumprelu" else None,
        )
        return sae, sae.encode_sparse(x)

    measurements = []
    for rescaled in (False, True):
        (small, small_codes), (large, large_codes) = (
            folded(m, seed, rescaled=rescaled) for m, seed in ((8, 0), (14, 1))
        )
        stitched = stitching.measure(small, large, small_codes, large_codes, acts)
        assert isinstance(stitched, Measurement)
        single = fidelity.measure(large, large_codes, acts)
        assert isinstance(single, Measurement)
        measurements.append((stitched, single))
    for before, after in zip(*measurements, strict=True):
        for name, score in before.scores.items():
            if not isinstance(score, Undefined):
                assert value(after, name) == pytest.approx(value(before, name), rel=1e-4), name
