"""Meta-latents that are a smaller SAE's latents are told so; others are told apart from them."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
import pytest
import torch
from brute_force import TinySAE, cosine, max_cosines
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import values
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.meta_sae import MetaSAE
from saebench_canon.kernels.meta_training import Training
from saebench_canon.kernels.nulls import covariance_matched, isotropic
from saebench_canon.kernels.random_generators import generator
from saebench_canon.kernels.replace import encoded, overlap, quality, refit, strongest, turned
from saebench_canon.metrics.meta_replace.metric import meta_replace
from saebench_canon.metrics.meta_sae.fits import fit_all_rows
from saebench_canon.metrics.meta_sae.published import published
from saebench_canon.metrics.meta_sae.settings import MetaTraining
from saebench_canon.metrics.shared.live_rows import live_rows
from saebench_canon.plugin.metric import Measurement, Value
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.saes.fold import fold

QUICK: dict[str, Any] = {"width": 12, "k": 2, "steps": 20, "draws": 3}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


def tiny(rows: Tensor) -> TinySAE:
    return TinySAE(rows, torch.zeros(rows.shape[1]))


def measure(
    small: Tensor, large: Tensor, codes: tuple[Codes, Codes] | None = None, **more: Any
) -> Measurement:
    given = codes or (None, None)
    seed = more.pop("seed", 0)
    found = meta_replace.measure(tiny(small), tiny(large), *given, seed, None, **more)
    assert isinstance(found, Measurement)
    return found


def number(found: Measurement, name: str) -> float:
    value = values(found)[name]
    assert isinstance(value, float), value
    return value


def planted(d: int = 64, atoms: int = 48, m: int = 300) -> tuple[Tensor, Tensor]:
    """Small rows, and large rows that are sums of two or three of them."""
    g = generator(0, "planted")
    small = isotropic(atoms, d, g)
    picks = [torch.randperm(atoms, generator=g)[: 2 + at % 2] for at in range(m)]
    return small.float(), torch.stack([small[each].sum(dim=0) for each in picks]).float()


def model(d: int = 6, M: int = 10, *, seed: int = 0, biased: bool = False) -> MetaSAE:
    """Some meta-SAE, its decoder rows of different lengths."""
    rows = unit(random(M, d, seed=seed))
    lengths = 0.5 + random(M, 1, seed=seed + 1).abs()
    W_enc = rows + 0.2 * random(M, d, seed=seed + 2)
    bias = 0.1 * random(1, d, seed=seed + 3)
    level = torch.tensor([0.4], dtype=torch.float64)
    b_enc = 0.2 * random(1, M, seed=seed + 4) if biased else None
    return MetaSAE(W_enc[None], (rows * lengths)[None], bias, level, b_enc=b_enc)


def rebuilt(model: MetaSAE, rows: Tensor, W_dec: Tensor | None = None) -> Tensor:
    """Eq. 8's codes and their sums, row by row."""
    out = []
    for row in rows:
        guess = model.b_dec[0].clone()
        for j in range(model.W_dec.shape[1]):
            z = float((row - model.b_dec[0]) @ model.W_enc[0, j])
            z += 0.0 if model.b_enc is None else float(model.b_enc[0, j])
            if z >= float(model.threshold[0]):
                guess = guess + z * (model.W_dec[0] if W_dec is None else W_dec)[j]
        out.append(guess)
    return torch.stack(out)


def errors(rows: Tensor, guess: Tensor) -> tuple[float, float]:
    left = float(((rows - guess) ** 2).sum())
    total = float(((rows - rows.mean(dim=0)) ** 2).sum())
    return 1 - left / total, left / rows.numel()


@pytest.mark.parametrize("biased", [False, True])
def test_quality_is_what_each_row_s_codes_rebuild_whatever_the_blocks(biased: bool) -> None:
    it, rows = model(biased=biased), unit(random(30, 6, seed=9))
    wanted = errors(rows, rebuilt(it, rows))
    for block in (1, 25, 2**20):
        codes = encoded(it, rows, block=block)
        found = quality(it, rows, codes, block=block)
        assert (found.explained_variance, found.mse) == pytest.approx(wanted, abs=1e-12)


def test_other_directions_keep_the_lengths_of_the_rows_in_whose_place_they_are() -> None:
    it, rows = model(), unit(random(30, 6, seed=9))
    others = 3 * random(10, 6, seed=4)
    by_hand = torch.stack([it.W_dec[0, j].norm() * others[j] / others[j].norm() for j in range(10)])
    found = quality(turned(it, others), rows, encoded(it, rows))
    assert found.mse == pytest.approx(errors(rows, rebuilt(it, rows, by_hand))[1], abs=1e-12)
    same = quality(turned(it, it.W_dec[0]), rows, encoded(it, rows))
    assert same.mse == pytest.approx(quality(it, rows, encoded(it, rows)).mse, abs=1e-12)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("batch", [30, 12])
def test_refit_is_training_with_a_frozen_decoder(batch: int, biased: bool) -> None:
    it, rows = model(biased=biased), unit(random(30, 6, seed=9))
    how = Training(width=10, k=2, steps=7, batch=batch, lr=0.01, betas=(0.8, 0.95))
    found = refit(it, rows, how, generator(1, "refit"), title="a test")
    W_enc, b_dec = (each.clone().requires_grad_() for each in (it.W_enc[0], it.b_dec[0]))
    b_enc = torch.zeros(10, dtype=torch.float64)
    if it.b_enc is not None:
        b_enc = it.b_enc[0].clone().requires_grad_()
    learnt = [W_enc, b_dec, b_enc] if biased else [W_enc, b_dec]
    adam = torch.optim.Adam(learnt, lr=how.lr, betas=how.betas)
    draws = generator(1, "refit")
    left: list[Tensor] = []
    for _ in range(how.steps):
        if not left and batch < 30:
            whole_order = torch.randperm(30, generator=draws)
            left = [whole_order[at : at + batch] for at in range(0, 30 - batch + 1, batch)]
        x = rows if batch == 30 else rows[left.pop(0)]
        z = (x - b_dec) @ W_enc.T + b_enc
        least = z.detach().flatten().sort(descending=True).values[how.k * len(x) - 1]
        codes = z * ((z > 0) & (z >= least))
        loss = ((codes @ it.W_dec[0] + b_dec - x) ** 2).sum(dim=1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert torch.equal(found.W_dec, it.W_dec)
    assert torch.allclose(found.W_enc[0], W_enc, atol=1e-9)
    assert torch.allclose(found.b_dec[0], b_dec, atol=1e-9)
    if found.b_enc is not None:
        assert torch.allclose(found.b_enc[0], b_enc, atol=1e-9)
    assert (found.b_enc is None) == (not biased)
    if batch == 30:
        z = ((rows - b_dec) @ W_enc.T + b_enc).detach().flatten()
        assert float(found.threshold) == pytest.approx(
            float(z.sort().values[-how.k * 30]), rel=2e-6
        )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(1, 40))
def test_overlap_counts_edges_among_the_largest_cosines(seed: int, count: int) -> None:
    rows, others = random(8, 3, seed=seed), random(5, 3, seed=seed + 1)
    others[4] = 2 * others[1]  # pairs that tie
    pairs = list(itertools.product(range(8), range(5)))
    chosen = torch.randperm(40, generator=generator(seed, "edges"))[:count].tolist()
    edges = [pairs[at] for at in chosen]
    by_cosine = {pair: round(cosine(rows[pair[0]], others[pair[1]]), 6) for pair in pairs}
    ranked = sorted(by_cosine.values(), reverse=True)
    cut = ranked[count - 1]
    above = [pair for pair in pairs if by_cosine[pair] > cut]
    at_cut = [pair for pair in pairs if by_cosine[pair] == cut]
    chance = (count - len(above)) / len(at_cut)
    wanted = sum(pair in above for pair in edges) + chance * sum(pair in at_cut for pair in edges)
    for block in (1, 10, 2**20):
        cosines = strongest(rows, others, count, block=block)
        assert cosines.tolist() == pytest.approx(ranked[: len(cosines)])
        assert len(cosines) == len(above) + len(at_cut)
        found = overlap(torch.tensor(edges), rows, others, cosines)
        assert found == pytest.approx(wanted / count)


def test_the_metric_is_what_its_parts_are_by_hand() -> None:
    small, large = random(9, 5).float(), random(40, 5, seed=1).float()
    measured = measure(small, large, **QUICK)
    rows, others = live_rows(tiny(large), None).rows, live_rows(tiny(small), None).rows
    training = MetaTraining(preset="quarter", width=12, k=2, steps=20).on(40)
    model = fit_all_rows(rows, training, 0, None)
    model = MetaSAE.of({name: tensor.double() for name, tensor in model.tensors().items()})
    assert model.b_enc is not None
    wide = rows.double()
    explained, mse = errors(wide, rebuilt(model, wide))
    assert number(measured, "explained_variance") == pytest.approx(explained, abs=1e-5)
    assert number(measured, "mse") == pytest.approx(mse, rel=1e-4)
    active = (wide - model.b_dec[0]) @ model.W_enc[0].T + model.b_enc[0] >= model.threshold[0]
    live = [j for j in range(12) if bool(active[:, j].any())]
    best, which = max_cosines(model.W_dec[0], others.double())
    mean = sum(best[j] for j in live) / len(live)
    assert number(measured, "nearest_small") == pytest.approx(mean, abs=1e-5)
    swapped = others[which].double() * model.W_dec[0].norm(dim=1, keepdim=True)
    explained, mse = errors(wide, rebuilt(model, wide, swapped))
    assert number(measured, "replaced") == pytest.approx(explained, abs=1e-5)
    assert number(measured, "mse_replaced") == pytest.approx(mse, rel=1e-4)
    chance = covariance_matched(others, generator(0, "meta_replace", "rows"))
    _, at = max_cosines(model.W_dec[0], chance)
    explained, _ = errors(wide, rebuilt(model, wide, chance[at]))
    assert number(measured, "replaced_null") == pytest.approx(explained, abs=1e-5)
    edges = {(i, which[j]) for i in range(40) for j in live if bool(active[i, j])}
    graph = {(i, s): cosine(wide[i], others[s].double()) for i in range(40) for s in range(9)}
    top = sorted(graph, key=lambda pair: -graph[pair])[: len(edges)]
    share = len(edges & set(top)) / len(edges)
    assert number(measured, "graph_overlap") == pytest.approx(share, abs=1e-9)
    table = measured.tables["nearest"]
    names = live_rows(tiny(small), None).latents
    assert table["small_latent"].tolist() == names[which].tolist()
    assert table["cosine"].tolist() == pytest.approx(best, abs=1e-5)
    assert table.index[table["alive"]].tolist() == live
    within = measured.tables["within"]
    assert within["which"].value_counts().to_dict() == {"large": 40, "meta": len(live), "small": 9}
    by_hand = [
        max(cosine(a, b) for at, b in enumerate(small.double()) if at != here)
        for here, a in enumerate(small.double())
    ]
    assert within[within["which"] == "small"]["cosine"].tolist() == pytest.approx(by_hand, abs=1e-5)
    assert set(measured.scores) == {score.name for score in meta_replace.scores}


def as_meta(rows: Tensor, k: float = 3) -> CanonicalSAE:
    """A meta-SAE whose encoder lies along its decoder rows."""
    zero = torch.zeros(rows.shape[1])
    return fold(
        W_enc=rows.T, W_dec=rows, b_dec=zero, activation="batchtopk", k=k, apply_b_dec_to_input=True
    )


def test_meta_latents_that_are_small_latents_lose_nothing_when_replaced() -> None:
    small, large = planted()
    found = measure(small, large, meta=as_meta(small, 2.5), refit_steps=200)
    explained = number(found, "explained_variance")
    assert explained > 0.8
    assert number(found, "nearest_small") == pytest.approx(1, abs=1e-6)
    assert number(found, "nearest_null") < 0.6
    assert number(found, "replaced") == pytest.approx(explained, abs=1e-6)
    assert number(found, "replaced_refit") > explained - 0.01
    assert number(found, "replaced_random") < explained - 1
    assert number(found, "replaced_null") < explained - 0.5
    assert number(found, "replaced_null") < number(found, "replaced_refit_null")
    assert number(found, "replaced_refit_null") < explained - 0.3
    assert number(found, "graph_overlap") > 0.97
    assert number(found, "graph_overlap_null") < 0.15


def test_a_trained_meta_sae_of_sums_is_found_in_the_small_rows() -> None:
    small, large = planted(m=900)
    found = measure(small, large, preset="paper", width=48, k=3, steps=600, lr=5e-3)
    explained = number(found, "explained_variance")
    assert explained > 0.9
    assert number(found, "nearest_small") > 0.9
    assert number(found, "nearest_small") > number(found, "nearest_null") + 0.4
    assert 0.4 < number(found, "replaced") < number(found, "replaced_refit")
    assert abs(number(found, "replaced_refit") - explained) < 0.05
    assert number(found, "replaced_random") < -1
    assert number(found, "replaced_refit_null") < number(found, "replaced_refit") - 0.3
    assert number(found, "graph_overlap") > 0.7
    assert number(found, "graph_overlap_null") < 0.15
    for name in ("", "_replaced", "_replaced_refit", "_replaced_random"):
        spread = float(live_rows(tiny(large), None).rows.var(dim=0, correction=0).mean())
        variance = number(found, name[1:] or "explained_variance")
        assert number(found, f"mse{name}") == pytest.approx((1 - variance) * spread, rel=1e-5)


def test_narrower_peers_lend_their_rows() -> None:
    small, large = planted()
    halves, wide = (small[:20], small[20:]), isotropic(300, 64, generator(5, "wide")).float()
    meta = as_meta(small, 2.5)
    how: dict[str, Any] = {"meta": meta, "refit_steps": 5, "draws": 2}
    joined = measure(small, large, **how)
    alone = measure(halves[0], large, **how)
    peers = tiny(halves[1]), tiny(wide)
    dead = torch.ones(28)
    dead[3] = 0
    codes = tuple(Codes.from_dense(each.repeat(2, 1)) for each in (torch.ones(28), torch.ones(300)))
    given = tiny(halves[0]), tiny(large), None, None, 0, None, peers
    found = meta_replace.measure(*given, codes, **how)
    assert values(found) == pytest.approx(values(joined), abs=1e-6)  # type: ignore[arg-type]
    assert number(alone, "nearest_small") < number(found, "nearest_small") - 0.2
    table = found.tables["nearest"]
    assert table["small_width"].tolist() == [20] * 20 + [28] * 28
    assert table["small_latent"].tolist() == [*range(20), *range(28)]
    assert (found.tables["within"]["which"] == "small").sum() == 20
    codes = (Codes.from_dense(dead.repeat(2, 1)), codes[1])
    table = meta_replace.measure(*given, codes, **how).tables["nearest"]
    assert table["small_latent"][23] != 3
    assert table["cosine"].drop(23).tolist() == pytest.approx([1.0] * 47)


def test_which_peers_lend_is_told_by_live_latents_and_not_by_width() -> None:
    small, large, near, wide = (random(m, 6, seed=m) for m in (15, 40, 30, 40))
    g = generator(0, "appended")

    def found(dead: int, order: tuple[int, int]) -> Measurement:
        tables = [torch.cat([each, torch.randn(dead, 6, generator=g)]) for each in (near, wide)]
        codes = [Codes.from_dense((torch.arange(m + dead) < m).float()[None]) for m in (30, 40)]
        peers, own = (tuple(pair[at] for at in order) for pair in ([*map(tiny, tables)], codes))
        given = tiny(small), tiny(large), None, None, 0, None, peers, own
        return meta_replace.measure(*given, **QUICK)  # type: ignore[return-value]

    wanted = found(0, (0, 1))
    for dead, order in ((20, (0, 1)), (0, (1, 0)), (20, (1, 0))):
        again = found(dead, order)
        assert values(again) == values(wanted)
        lent = again.tables["nearest"]["small_width"]
        assert set(lent) <= {15, 30 + dead}
        assert 30 + dead in set(lent)


def test_meta_latents_far_from_the_small_rows_are_told_so() -> None:
    small, large = planted()
    other = isotropic(48, 64, generator(7, "others")).float()
    found = measure(other, large, meta=as_meta(small), refit_steps=100)
    assert abs(number(found, "nearest_small") - number(found, "nearest_null")) < 0.02
    assert number(found, "replaced") < number(found, "replaced_refit")
    assert number(found, "replaced") < number(found, "explained_variance") - 0.3
    assert abs(number(found, "replaced_refit") - number(found, "replaced_refit_null")) < 0.1


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 999))
def test_order_scale_and_dead_latents_change_nothing(seed: int) -> None:
    small, large = random(9, 5, seed=seed).float(), random(40, 5, seed=seed + 1).float()
    g = generator(seed, "change")
    before = values(measure(small, large, **QUICK))
    changed, codes = [], []
    for rows in (small, large):
        order = torch.randperm(len(rows), generator=g)
        scale = 2.0 ** torch.randint(-3, 4, (len(rows), 1), generator=g)
        dead = random(4, 5, seed=seed + 2).float()
        changed.append(torch.cat([dead, rows[order] * scale]))
        codes.append(Codes.from_dense((torch.arange(len(rows) + 4) >= 4).float().repeat(2, 1)))
    after = values(measure(*changed, codes=(codes[0], codes[1]), **QUICK))
    assert after == pytest.approx(before, abs=1e-9)


def test_dead_meta_latents_change_nothing_and_are_told() -> None:
    small, large = planted(m=80)
    rows = torch.cat([small, isotropic(3, 64, generator(3, "dead")).float()])
    it = as_meta(rows, 2.0)
    encoder = rows.clone()
    encoder[-3:] = 0  # never above the threshold
    grown = fold(
        W_enc=encoder.T, W_dec=rows, b_dec=it.b_dec, activation="batchtopk", k=2,
        apply_b_dec_to_input=True,
    )  # fmt: skip
    before = measure(small, large, meta=as_meta(small, 2.0), refit_steps=10)
    after = measure(small, large, meta=grown, refit_steps=10)
    assert values(after) == pytest.approx(values(before), abs=1e-6)  # trained in float32
    alive = before.tables["nearest"]["alive"].tolist()
    assert after.tables["nearest"]["alive"].tolist() == alive + [False] * 3
    pd.testing.assert_frame_equal(after.tables["within"], before.tables["within"])


def test_what_there_is_nothing_to_compare_with_is_undefined_with_the_reason() -> None:
    small, large = random(9, 5).float(), random(40, 5, seed=1).float()
    dead, live = (Codes.from_dense(torch.full((3, m), v)) for m, v in ((40, 0.0), (9, 1.0)))
    found = values(measure(small, large, codes=(live, dead), **QUICK))
    assert set(found.values()) == {"no latent of the larger SAE is live"}
    dead, live = (Codes.from_dense(torch.full((3, m), v)) for m, v in ((9, 0.0), (40, 1.0)))
    found = values(measure(small, large, codes=(dead, live), **QUICK))
    told = {name for name, value in found.items() if isinstance(value, str)}
    assert {found[name] for name in told} == {"no latent of the smaller SAE is live"}
    assert set(found) - told == {
        "explained_variance", "mse", "replaced_random", "mse_replaced_random",
    }  # fmt: skip
    same = values(measure(small, large[:1].repeat(40, 1), **QUICK))
    assert same["explained_variance"] == same["replaced"] == "the decoder rows do not vary"
    assert isinstance(same["mse"], float)


def test_settings_that_cannot_be_are_refused() -> None:
    small, large = random(9, 5).float(), random(40, 5, seed=1).float()
    for setting, says in (
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"refit_steps": 0}, "refit_steps must be at least 1, got 0"),
        ({"preset": "quater"}, "no preset 'quater'"),
        ({"meta": as_meta(small), "width": 8}, "width must be that of the meta-SAE, 9, got 8"),
        (
            {"meta": as_meta(random(9, 4).float())},
            "takes rows with d = 4, and these rows have d = 5",
        ),
    ):
        with pytest.raises(CanonError, match=says):
            measure(small, large, **{**QUICK, "width": None, **setting})  # type: ignore[dict-item]


def test_one_draw_has_no_standard_error_and_several_have() -> None:
    small, large = random(9, 5).float(), random(40, 5, seed=1).float()
    several = measure(small, large, **QUICK).scores["replaced_random"]
    assert isinstance(several, Value)
    assert several.stderr is not None
    assert (several.n, several.unit) == (3, "draw")
    one = measure(small, large, **{**QUICK, "draws": 1}).scores["replaced_random"]
    assert isinstance(one, float)


def raw(m: int = 12, d: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """A meta-SAE as files have it, its rows not at unit norm."""
    rows = unit(random(m, d, seed=seed)) * (0.9 + 0.2 * torch.rand(
        m, 1, generator=generator(seed, "norms"), dtype=torch.float64))  # fmt: skip
    return {
        "W_enc": (rows + 0.1 * random(m, d, seed=seed + 1)).T.contiguous(),
        "W_dec": rows,
        "b_dec": 0.1 * random(d, seed=seed + 2),
    }


def test_a_published_meta_sae_selects_over_batches_of_these_rows() -> None:
    state, rows = raw(), unit(random(50, 6, seed=9))
    sae = fold(**state, activation="batchtopk", k=2, apply_b_dec_to_input=True)
    z = ((rows - state["b_dec"]) @ state["W_enc"]).relu()
    for k in (2, 3):
        it = published(sae, rows, None if k == 2 else k)
        least = float(z.flatten().sort().values[-k * 50])
        assert float(it.threshold) == pytest.approx(least)
        guess = (z * (z >= least)) @ state["W_dec"] + state["b_dec"]
        found = quality(it, rows, encoded(it, rows))
        assert (found.explained_variance, found.mse) == pytest.approx(errors(rows, guess))


def test_a_published_threshold_is_taken_as_it_is() -> None:
    state, rows = raw(), unit(random(50, 6, seed=9))
    for level in (torch.tensor(0.5), 0.3 + torch.rand(12, generator=generator(0, "levels"))):
        sae = fold(**state, activation="jumprelu", threshold=level, apply_b_dec_to_input=True)
        z = (rows - state["b_dec"]) @ state["W_enc"]
        guess = (z * (z > level)) @ state["W_dec"] + state["b_dec"]
        it = published(sae, rows)
        found = quality(it, rows, encoded(it, rows))
        assert found.mse == pytest.approx(errors(rows, guess)[1])
    relu = fold(**state, activation="relu", apply_b_dec_to_input=True)
    guess = ((rows - state["b_dec"]) @ state["W_enc"]).relu() @ state["W_dec"] + state["b_dec"]
    it = published(relu, rows)
    assert quality(it, rows, encoded(it, rows)).mse == pytest.approx(errors(rows, guess)[1])


def test_thresholds_of_large_decoders_are_means_over_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("saebench_canon.metrics.meta_sae.published.BATCH", 16)
    state, rows = raw(), unit(random(50, 6, seed=9))
    sae = fold(**state, activation="batchtopk", k=2, apply_b_dec_to_input=True)
    order = torch.randperm(50, generator=generator(0, "meta_sae", "published"))
    z = (rows - state["b_dec"]) @ state["W_enc"]
    least = [float(z[order[at : at + 16]].flatten().sort().values[-32]) for at in (0, 16, 32)]
    assert float(published(sae, rows).threshold) == pytest.approx(sum(least) / 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation": "topk"}, "encoder is topk"),
        ({"b_enc": torch.ones(12)}, "encoder has a bias"),
        ({"apply_b_dec_to_input": False}, "does not subtract its decoder bias"),
        (
            {"activation": "jumprelu", "threshold": torch.arange(12.0)},
            "some latents of the meta-SAE have a threshold and others have none",
        ),
    ],
)
def test_what_is_no_meta_sae_is_refused(change: dict[str, Any], says: str) -> None:
    how = {"activation": "batchtopk", "k": 2, "apply_b_dec_to_input": True, **change}
    with pytest.raises(CanonError, match=says):
        published(fold(**raw(), **how), unit(random(50, 6, seed=9)))


def test_k_is_refused_where_the_threshold_is_stored() -> None:
    sae = fold(
        **raw(), activation="jumprelu", threshold=torch.tensor(0.5), apply_b_dec_to_input=True
    )
    with pytest.raises(CanonError, match="k = 3 has no effect"):
        published(sae, unit(random(50, 6, seed=9)), 3)
