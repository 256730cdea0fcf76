"""A meta-SAE finds composition where it was planted, only there; its scores are those of its fits.

How the training itself does is tested in test_meta_sae_kernel.py: here all is recomputed from what
came out of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import brute_force as plain
import numpy as np
import pytest
import torch
from brute_force import TinySAE, sorted_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import values
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.composition import one_parent, parent_null, planted_sums
from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.meta_sae import MetaSAE
from saebench_canon.kernels.meta_training import Training
from saebench_canon.kernels.nnomp import pursue
from saebench_canon.kernels.nulls import covariance_matched, isotropic
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.meta_sae import fits as meta_fits
from saebench_canon.metrics.meta_sae import scores as meta_runs
from saebench_canon.metrics.meta_sae.metric import meta_sae
from saebench_canon.metrics.meta_sae.presets import PRESETS, with_few_dead
from saebench_canon.metrics.meta_sae.settings import MetaTraining
from saebench_canon.metrics.shared.live_rows import live_rows
from saebench_canon.plugin.metric import Mark, Measurement, Undefined, Value


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


def measure(
    rows: Tensor, codes: Codes | None = None, memo: Any = None, keep: Any = None, **more: Any
) -> Measurement:
    seed = more.pop("seed", 0)
    sae = TinySAE(rows, torch.zeros(rows.shape[1]))
    found = meta_sae.measure(sae, seed, codes, memo, keep, **more)
    assert isinstance(found, Measurement)
    return found


def number(found: Measurement, name: str) -> float:
    score = values(found)[name]
    assert isinstance(score, float), f"{name}: {score}"
    return score


QUICK: dict[str, Any] = {"width": 10, "k": 2, "steps": 12}
PLAIN: dict[str, Any] = {**QUICK, "composition": False}
COMPOSED = (
    "composed_share", "composed_null", "composed_null_parent", "composed_null_covariance",
    "composed_null_clusters", "composed_excess", "composed_least", "purged_share",
    "planted_recall",
)  # fmt: skip


def composed(m: int, d: int, atoms: int, seed: int = 0) -> Tensor:
    """Sums of three of the atoms each, with a little noise."""
    g = generator(seed, "composed")
    table = isotropic(atoms, d, g)
    picks = torch.stack([torch.randperm(atoms, generator=g)[:3] for _ in range(m)])
    noise = torch.randn(m, d, generator=g, dtype=torch.float64) * 0.1 / d**0.5
    return (table[picks].sum(dim=1) + noise).float()


# --- every score from the fits ----------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """One call for meta-SAEs: on what, how, for what, and what came of it."""

    tables: Sequence[Tensor]
    training: Training
    start: tuple[int | str, ...]
    models: Sequence[MetaSAE]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Fitted]:
    """All meta-SAEs that the metric trains for its scores, in their order."""
    fitted: list[Fitted] = []
    real = meta_fits.fit

    def spy(
        tables: Sequence[Tensor], training: Training, *start: int | str, title: str
    ) -> list[MetaSAE]:
        models = real(tables, training, *start, title=title)
        fitted.append(Fitted(tables, training, start, models))
        return models

    monkeypatch.setattr(meta_runs, "fit", spy)
    return fitted


def places(rows: Tensor, table: Tensor) -> list[int]:
    """Which of the rows are in the table, which has them in their order."""
    found = [at for at, row in enumerate(rows) if bool((table == row).all(dim=1).any())]
    assert torch.equal(rows[found], table)
    return found


def pre_codes(model: MetaSAE, row: Tensor) -> list[float]:
    bias = torch.zeros(len(model.W_enc[0])) if model.b_enc is None else model.b_enc[0]
    centred = row - model.b_dec[0]
    return [float(centred @ each + b) for each, b in zip(model.W_enc[0], bias, strict=True)]


def rebuilt(model: MetaSAE, codes: Mapping[int, float]) -> Tensor:
    out = model.b_dec[0].double()
    for latent, code in codes.items():
        out = out + code * model.W_dec[0, latent].double()
    return out


def at_threshold(model: MetaSAE, row: Tensor) -> dict[int, float]:
    """The codes of a row by the inference threshold (eq. 8)."""
    level = float(model.threshold)
    return {at: z for at, z in enumerate(pre_codes(model, row)) if z >= level}


def largest(model: MetaSAE, row: Tensor, k: int) -> dict[int, float]:
    ranked = sorted(enumerate(pre_codes(model, row)), key=lambda each: -each[1])[:k]
    return {at: z for at, z in ranked if z > 0}


def variance_explained(rows: Tensor, guesses: Sequence[Tensor], *, centred: bool = True) -> float:
    rows = rows.double()
    left = sum(float(((row - g) ** 2).sum()) for row, g in zip(rows, guesses, strict=True))
    middle = rows.mean(dim=0) if centred else torch.zeros(rows.shape[1])
    return 1 - left / float(((rows - middle) ** 2).sum())


def mean(found: Sequence[float]) -> float:
    return math.fsum(found) / len(found)


def agrees(found: Measurement, name: str, runs: Sequence[float]) -> None:
    """The score is the mean over the meta-seeds, with its error."""
    score = found.scores[name]
    assert isinstance(score, Value), f"{name}: {score}"
    assert (score.n, score.unit) == (len(runs), "meta-seed")
    assert score.value == pytest.approx(mean(runs), abs=2e-5), name
    if len(runs) > 1:
        assert score.stderr == pytest.approx(np.std(runs, ddof=1) / len(runs) ** 0.5, abs=2e-5)


def test_explained_variances_are_those_of_the_fits(fits: list[Fitted]) -> None:
    table, seed, k = composed(60, 12, 8), 4, 3
    how = {"steps": 40, "k": k, "width": 12, "batch": 20, "holdout": 0.25}
    found = measure(table, seed=seed, meta_seeds=2, composition=False, **how)
    rows = sorted_rows(table)
    assert len(fits) == 4  # rows with their null for each meta-seed, then isotropic rows
    scores: dict[str, list[float]] = {name: [] for name in found.scores}
    splits = []
    for run, each in enumerate(fits[:2]):
        kept = places(rows, each.tables[0])
        held = sorted(set(range(60)) - set(kept))
        assert len(held) == 15
        splits.append(tuple(held))
        null = covariance_matched(rows, generator(seed, "meta_sae", run, "covariance")).float()
        assert torch.equal(each.tables[1], null[kept])
        assert each.start[0] == seed
        model, chance = each.models
        codes = [at_threshold(model, row) for row in rows[kept]]
        guesses = [rebuilt(model, each) for each in codes]
        scores["explained_variance"].append(variance_explained(rows[kept], guesses))
        scores["explained_variance_uncentred"].append(
            variance_explained(rows[kept], guesses, centred=False)
        )
        scores["mse"].append(
            sum(plain.mse(row[None], g[None]) for row, g in zip(rows[kept], guesses, strict=True))
            / len(kept)
        )
        scores["meta_l0"].append(sum(map(len, codes)) / len(kept))
        used = {latent for each in codes for latent in each}
        scores["meta_dead_share"].append(1 - len(used) / 12)
        guesses = [rebuilt(model, largest(model, row, k)) for row in rows[held]]
        scores["heldout_explained_variance"].append(variance_explained(rows[held], guesses))
        guesses = [rebuilt(chance, largest(chance, row, k)) for row in null[held]]
        scores["heldout_null"].append(variance_explained(null[held], guesses))
        guesses = [rebuilt(chance, at_threshold(chance, row)) for row in null[kept]]
        scores["null_covariance"].append(variance_explained(null[kept], guesses))
        scores["above_null"].append(
            scores["explained_variance"][-1] - scores["null_covariance"][-1]
        )
    assert splits[0] != splits[1]
    for each in fits[2:]:
        (random_rows,), (model,) = each.tables, each.models
        assert random_rows.shape == (45, 12)
        torch.testing.assert_close(random_rows.norm(dim=1), torch.ones(45))
        guesses = [rebuilt(model, at_threshold(model, row)) for row in random_rows]
        scores["null_isotropic"].append(variance_explained(random_rows, guesses))
    for name, runs in scores.items():
        if runs:
            agrees(found, name, runs)
    assert set(found.scores) == {score.name for score in meta_sae.scores}
    assert not {name for name, runs in scores.items() if not runs} - {*COMPOSED} - {
        "pca_width", "pca_active", "kmeans_width", "kmeans_active",
    }  # fmt: skip


def pursued(rows: Tensor, atoms: Tensor, count: int) -> list[list[float]]:
    return [plain.pursuit(row.double(), atoms.double(), count) for row in rows]


def near_each_other(m: int, d: int) -> Tensor:
    """Sums of a few directions, in which every fourth row is a near-duplicate of the one before."""
    table = composed(m, d, max(4, m // 12)).double()
    table[3::4] = table[2::4] + 0.2 * random(*table[2::4].shape, seed=9) / d**0.5
    return table.float()


@pytest.mark.parametrize(("chance", "purge"), [(0.05, 0.8), (0.3, 0.95)])
def test_composition_is_that_of_the_fits(fits: list[Fitted], chance: float, purge: float) -> None:
    table, seed, atoms, gain = near_each_other(96, 12), 2, 3, 0.15
    how = {"width": 20, "k": 3, "steps": 40, "holdout": 0.3, "meta_seeds": 2, "seed": seed}
    found = measure(table, **how, purge=purge, chance=chance, atoms=atoms, gain=gain, least=0.5)
    rows = sorted_rows(table)
    few, planted_share = 6, 24  # m/16 directions and parents, a quarter of the rows
    explained: dict[str, list[list[list[float]]]] = {
        name: [] for name in ("rows", "parent", "covariance", "clusters", "planted")
    }
    purged = []
    for run in range(2):
        main, test = fits[2 * run], fits[2 * run + 1]
        kept = places(rows, main.tables[0])
        held = sorted(set(range(96)) - set(kept))

        def g(purpose: str, run: int = run) -> torch.Generator:
            return generator(seed, "meta_sae", run, purpose)

        assert test.training == with_few_dead(main.training)
        shared = covariance_matched(rows, g("shared directions"), count=few)
        at = torch.randperm(96, generator=g("planted places"))[:planted_share]
        planted = rows.clone()
        planted[at] = planted_sums(shared, planted_share, g("planted")).float()
        worlds = {
            "rows": rows,
            "covariance": covariance_matched(rows, g("covariance")).float(),
            "clusters": one_parent(rows, few, g("parents")).float(),
            "planted": planted,
        }
        left = {
            name: [i for i in kept if max(plain.cosine(each[i], each[j]) for j in held) < purge]
            for name, each in worlds.items()
        }
        purged.append(1 - len(left["rows"]) / len(kept))
        count = min(len(each) for each in left.values())
        assert count < len(left["rows"]) or count < len(kept)
        for (name, each), trained, model in zip(
            worlds.items(), test.tables, test.models, strict=True
        ):
            assert len(trained) == count
            assert set(places(each, trained)) <= set(left[name])
            tested = [j for j in held if name != "planted" or j in at.tolist()]
            about = (each[tested].double() - model.b_dec[0].double()).float()
            explained[name].append(pursued(about, model.W_dec[0], atoms))
            if name == "rows":
                first = pursue(about, model.W_dec[0], count=atoms)
                null = parent_null(about, model.W_dec[0], first, g("parent null"))
                explained["parent"].append(pursued(null, model.W_dec[0], atoms))
    nulls = ("parent", "covariance", "clusters")
    pooled = [[e for run in explained[name] for e in run] for name in nulls]
    least = number(found, "composed_least")
    assert least == pytest.approx(plain.least_raised(0.5, gain, chance, pooled), abs=1e-5)

    def shares(name: str) -> list[float]:
        return [mean([plain.is_sum(e, least, gain) for e in run]) for run in explained[name]]

    agrees(found, "purged_share", purged)
    agrees(found, "composed_share", shares("rows"))
    agrees(found, "planted_recall", shares("planted"))
    for name in nulls:
        agrees(found, f"composed_null_{name}", shares(name))
        assert mean(shares(name)) <= chance + 0.01
    null = max(mean(shares(name)) for name in nulls)
    assert number(found, "composed_null") == pytest.approx(null)
    share = mean(shares("rows"))
    assert number(found, "composed_excess") == pytest.approx((share - null) / (1 - null))
    assert 0 < mean(purged) < 1


def test_the_same_splits_are_used_with_and_without_composition() -> None:
    table = composed(40, 8, 6)
    before, after = (values(measure(table, **QUICK, composition=yes)) for yes in (True, False))
    for name in before:
        if name in COMPOSED:
            assert after[name] == "composition = false"
        else:
            assert after[name] == before[name], name


def test_without_rows_held_out_what_needs_them_is_undefined() -> None:
    found = values(measure(random(40, 6).float(), holdout=0.0, **QUICK))
    for name in ("heldout_explained_variance", "heldout_null", *COMPOSED):
        assert found[name] == "no row is held out"
    assert isinstance(found["explained_variance"], float)


def test_too_few_rows_left_beside_those_near_rows_kept_out_leave_composition_undefined() -> None:
    around_one = (torch.ones(40, 8) + 0.1 * random(40, 8)).float()
    found = values(measure(around_one, **QUICK))
    reason = "purging rows near held-out rows leaves 0 rows to train on"
    assert {found[name] for name in COMPOSED if name != "purged_share"} == {reason}
    assert found["purged_share"] == 1.0
    assert isinstance(found["heldout_explained_variance"], float)
    rows = isotropic(8, 16, generator(0)).float()
    assert isinstance(
        values(measure(rows, holdout=0.5, purge=1.0, **QUICK))["composed_share"], float
    )
    three = values(measure(rows, holdout=0.6, purge=1.0, **QUICK))
    assert (
        str(three["composed_share"]) == "purging rows near held-out rows leaves 3 rows to train on"
    )


@pytest.mark.parametrize("seed", range(5))
def test_where_no_planted_sum_was_kept_out_there_is_no_recall(seed: int) -> None:
    found = values(measure(isotropic(16, 32, generator(0)).float(), seed=seed, **QUICK))
    order = torch.randperm(16, generator=generator(seed, "meta_sae", 0, "holdout"))
    planted = torch.randperm(16, generator=generator(seed, "meta_sae", 0, "planted places"))[:4]
    if set(order[:3].tolist()) & set(planted.tolist()):
        assert isinstance(found["planted_recall"], float)
    else:
        assert found["planted_recall"] == "no planted sum is held out"
    assert isinstance(found["composed_share"], float)


# --- tables -----------------------------------------------------------------------------------


def kept_in(store: dict[str, Any]) -> Callable[..., Mapping[str, Tensor]]:
    def keep(key: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> Any:
        store["key"], store["tensors"] = dict(key), make()
        return store["tensors"]

    return keep


def test_the_decomposition_is_that_of_the_meta_sae_of_all_rows() -> None:
    table, store = composed(50, 10, 8), {}
    active = torch.ones(3, 50)
    active[:, [4, 17]] = 0
    codes = Codes.from_dense(active)
    found = measure(table * 3, codes, keep=kept_in(store), steps=60, k=3, width=12, batch=20)
    model = MetaSAE.of(store["tensors"])
    live = [at for at in range(50) if at not in (4, 17)]
    rows = unit(table * 3).float()
    expected = {at: at_threshold(model, rows[at]) for at in live}
    lines = found.tables["decomposition"]
    assert list(lines.columns) == ["latent", "meta_latent", "weight"]
    told = {at: dict(zip(each.meta_latent, each.weight, strict=True))
            for at, each in lines.groupby("latent")}  # fmt: skip
    assert set(told) == {at for at in live if expected[at]}
    for at, each in told.items():
        assert each == pytest.approx(expected[at], abs=1e-5)
    assert lines.latent.is_monotonic_increasing
    assert all(each.weight.is_monotonic_decreasing for _, each in lines.groupby("latent"))

    by_meta = found.tables["meta_latents"]
    assert by_meta.meta_latent.tolist() == list(range(12))
    for at, line in by_meta.iterrows():
        weights = [each[at] for each in expected.values() if at in each]
        assert line.latents == len(weights)
        assert line.density == pytest.approx(len(weights) / 48)
        assert line.mean_weight == pytest.approx(mean(weights) if weights else 0, abs=1e-5)
        assert line.max_weight == pytest.approx(max(weights, default=0), abs=1e-5)

    each_latent = found.tables["latents"]
    assert each_latent.latent.tolist() == live
    middle = rows[live].double().mean(dim=0)
    for line in each_latent.itertuples():
        row, guess = rows[line.latent].double(), rebuilt(model, expected[line.latent])
        share = 1 - float(((row - guess) ** 2).sum()) / float(((row - middle) ** 2).sum())
        assert line.explained == pytest.approx(share, abs=1e-5)
        assert line.meta_latents == len(expected[line.latent])


def test_rows_of_many_blocks_decompose_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    table = composed(50, 10, 8)
    how = {**PLAIN, "batch": 20}
    whole = measure(table, **how)
    for module in ("tables", "scores"):
        monkeypatch.setattr(f"saebench_canon.metrics.meta_sae.{module}.HEIGHT", 7)
    parts = measure(table, **how)
    for name, score in values(whole).items():
        assert values(parts)[name] == (score if isinstance(score, str) else pytest.approx(score))
    for name, lines in whole.tables.items():
        assert parts.tables[name].columns.tolist() == lines.columns.tolist()
        np.testing.assert_allclose(
            parts.tables[name].select_dtypes("number"), lines.select_dtypes("number"), atol=1e-6
        )


def test_the_meta_sae_of_all_rows_is_kept_under_what_it_depends_on() -> None:
    rows = composed(40, 8, 6)

    def key(table: Tensor = rows, codes: Codes | None = None, **more: Any) -> dict[str, Any]:
        store: dict[str, Any] = {}
        measure(table, codes, keep=kept_in(store), **{**PLAIN, **more})
        return dict(store["key"])

    first, order = key(), torch.randperm(40, generator=generator(1))
    shared: dict[str, Any] = {}  # with other metrics: those that ask for it themselves
    how = MetaTraining(preset="quarter", **QUICK).on(40)
    meta_fits.fit_all_rows(sorted_rows(rows), how, 0, kept_in(shared))
    assert first == shared["key"]
    same = [
        key(rows[order] * 4),
        key(torch.cat([rows, rows[:2]]), Codes.from_dense(torch.ones(1, 42).index_fill_(
            1, torch.tensor([40, 41]), 0))),
        *(key(**more) for more in (
            {"holdout": 0.3}, {"meta_seeds": 2}, {"composition": True}, {"purge": 0.9},
            {"atoms": 3}, {"least": 0.7}, {"gain": 0.1}, {"chance": 0.2},
        )),
    ]  # fmt: skip
    assert all(each == first for each in same)
    others = [
        key(composed(40, 8, 6, seed=1)),
        key(rows[:39]),
        *(key(**more) for more in (
            {"seed": 1}, {"width": 11}, {"k": 3}, {"steps": 13}, {"batch": 20}, {"lr": 1e-3},
            {"preset": "paper"},
        )),
    ]  # fmt: skip
    assert all(each != first for each in others)
    assert len({str(each) for each in others}) == len(others)


def test_a_kept_meta_sae_is_taken_as_it_is() -> None:
    rows, store = composed(40, 8, 6), {}
    other = measure(rows, keep=kept_in(store), **{**PLAIN, "steps": 1})
    found = measure(rows, keep=lambda key, make: store["tensors"], **PLAIN)
    assert found.tables["decomposition"].equals(other.tables["decomposition"])
    assert values(found) == values(measure(rows, **PLAIN))
    assert not found.tables["convergence"].equals(other.tables["convergence"])


def test_the_loss_of_each_training_falls(fits: list[Fitted]) -> None:
    found = measure(composed(60, 12, 8), steps=300, k=3, width=16, meta_seeds=2, lr=1e-3,
                    composition=False)  # fmt: skip
    table = found.tables["convergence"]
    assert list(table.columns) == ["meta_seed", "of", "step", "loss"]
    groups = dict(list(table.groupby(["meta_seed", "of"])))
    assert set(groups) == {(run, of) for run in (0, 1) for of in ("rows", "null_covariance")}
    for (run, of), lines in groups.items():
        model = fits[run].models[0 if of == "rows" else 1]
        assert model.curve_loss is not None
        assert lines.loss.tolist() == pytest.approx(model.curve_loss[:, 0].tolist())
        assert (lines.step.iloc[0], lines.step.iloc[-1]) == (1, 300)
        assert lines.step.is_monotonic_increasing
        assert lines.loss.iloc[-5:].mean() < 0.7 * lines.loss.iloc[0]


# --- simpler descriptions ---------------------------------------------------------------------


@pytest.mark.parametrize(("m", "d", "width", "k"), [(40, 12, 8, 3), (30, 6, 10, 2), (9, 16, 6, 2)])
def test_principal_components_and_k_means_are_those_of_plain_loops(
    m: int, d: int, width: int, k: int
) -> None:
    table = composed(m, d, 5) + 0.3
    found = measure(table, width=width, k=k, steps=2, composition=False, seed=3)
    rows = unit(sorted_rows(table))
    centred = (rows - rows.mean(dim=0)).numpy()
    powers = np.linalg.svd(centred, compute_uv=False) ** 2
    total = powers.sum()
    assert number(found, "pca_width") == pytest.approx(powers[:width].sum() / total)
    assert number(found, "pca_active") == pytest.approx(powers[:k].sum() / total)
    order = torch.randperm(m, generator=generator(3, "meta_sae", "k-means"))
    centres, own = plain.k_means(rows, rows[order[:width]])
    inside = 0.0
    for at in range(width):
        members = rows[[i for i in range(m) if own[i] == at]]
        inside += float(((members - members.mean(dim=0)) ** 2).sum()) if len(members) else 0.0
    assert number(found, "kmeans_width") == pytest.approx(1 - inside / total)
    left = sum(1 - plain.pursuit(row, centres, k)[-1] for row in rows)
    assert number(found, "kmeans_active") == pytest.approx(1 - left / total, abs=1e-5)


def test_more_latents_than_rows_or_directions_explain_all() -> None:
    found = measure(random(12, 5).float(), width=30, k=2, steps=2, composition=False)
    assert number(found, "pca_width") == pytest.approx(1)
    assert number(found, "kmeans_width") == pytest.approx(1)


def test_rows_that_are_all_alike_leave_the_scores_undefined() -> None:
    found = values(measure(torch.ones(40, 6), **QUICK))
    for name in ("explained_variance", "above_null", "pca_width", "pca_active", "kmeans_width",
                 "kmeans_active"):  # fmt: skip
        assert found[name] == "the decoder rows do not vary"
    assert found["heldout_explained_variance"] == "the held-out rows do not vary"
    reason = str(found["composed_share"])
    assert reason.startswith("purging rows near held-out rows leaves ")
    assert reason.endswith(" rows to train on")


# --- planted decoders -------------------------------------------------------------------------


def test_planted_sums_are_explained_far_beyond_the_null() -> None:
    found = measure(composed(200, 48, 48), composition=False)
    assert number(found, "above_null") > 0.12
    held = number(found, "heldout_explained_variance")
    assert held > number(found, "heldout_null") + 0.3
    assert 3.9 < number(found, "meta_l0") < 4.1
    assert set(found.scores) == {score.name for score in meta_sae.scores}


def test_random_rows_are_no_better_than_the_null() -> None:
    found = measure(isotropic(200, 48, generator(3, "rows")).float(), composition=False)
    assert abs(number(found, "above_null")) < 0.025
    assert abs(number(found, "explained_variance") - number(found, "null_isotropic")) < 0.04
    held = number(found, "heldout_explained_variance")
    assert abs(held - number(found, "heldout_null")) < 0.1


TRAINED: dict[str, Any] = {"lr": 1e-3, "holdout": 0.3}


def test_sums_of_shared_directions_are_found_among_rows_kept_out() -> None:
    """Half of the rows are sums of two or three of 32 directions; their recall is about .7."""
    g = generator(0, "half")
    directions = isotropic(32, 64, g)
    picks = torch.rand(128, 32, generator=g).argsort(dim=1)[:, :3]
    weights = 0.75 + 0.5 * torch.rand(128, 3, generator=g, dtype=torch.float64)
    weights[::2, 2] = 0
    made = torch.einsum("ns,nsd->nd", weights, directions[picks])
    rows = torch.cat([isotropic(128, 64, g), made]).float()
    found = measure(rows)
    assert 0.12 < number(found, "composed_excess") < 0.65
    assert number(found, "composed_null") <= 0.05 + 1e-9


@pytest.mark.parametrize("world", ["independent", "splits of one parent each"])
def test_atomic_rows_are_no_sums_of_shared_directions(world: str) -> None:
    g = generator(1, "atomic")
    rows = isotropic(192, 48, g)
    if world != "independent":
        parents = isotropic(12, 48, g).repeat_interleave(16, 0)
        rows = unit(0.75 * parents + (1 - 0.75**2) ** 0.5 * rows)
    found = measure(rows.float(), **TRAINED)
    assert number(found, "composed_excess") < 0.15  # one meta-seed: 58 rows kept out
    assert number(found, "composed_null") <= 0.05 + 1e-9


# --- what changes nothing, and what is refused ------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 999))
def test_order_scale_and_dead_latents_change_nothing_at_all(seed: int) -> None:
    rows = random(40, 12, seed=seed).float()
    g = generator(seed, "change")
    order = torch.randperm(40, generator=g)
    scale = 2.0 ** torch.randint(-3, 4, (40, 1), generator=g)
    first = measure(rows, **QUICK)
    before = values(first)
    assert isinstance(before["composed_share"], float)
    assert values(measure(rows[order] * scale, **QUICK)) == before
    grown = torch.cat([random(5, 12, seed=seed + 1).float(), rows[order]])
    active = torch.cat([torch.zeros(3, 5), torch.ones(3, 40)], dim=1)
    after = measure(grown, Codes.from_dense(active), **QUICK)
    assert values(after) == before
    for name in ("convergence", "meta_latents"):
        assert after.tables[name].equals(first.tables[name])
    moved = after.tables["latents"].set_index("latent")
    for line in first.tables["latents"].itertuples():
        at = int((order == line.latent).nonzero()) + 5
        assert (moved.explained[at], moved.meta_latents[at]) == (line.explained, line.meta_latents)


def test_any_scale_changes_no_more_than_rounding_does() -> None:
    rows = composed(96, 24, 12)
    scale = torch.rand(96, 1, generator=generator(1)) * 5 + 0.1
    before, after = (measure(each, steps=300, composition=False) for each in (rows, rows * scale))
    for name in set(before.scores) - {*COMPOSED}:
        assert number(after, name) == pytest.approx(number(before, name), abs=0.02), name


def test_sorted_rows_are_the_same_whatever_the_order_also_where_many_agree() -> None:
    rows = torch.cat([torch.eye(6), torch.eye(6)[:3], -torch.eye(6)])
    order = torch.randperm(len(rows), generator=generator(0))
    assert torch.equal(sorted_rows(rows), sorted_rows(rows[order]))
    plain_order = torch.tensor(sorted(rows.tolist()))
    assert torch.equal(sorted_rows(rows * 2), plain_order)
    found = live_rows(TinySAE(rows[order], torch.zeros(6)), None)  # type: ignore[arg-type]
    assert torch.equal(found.rows, plain_order)
    assert torch.equal(rows[order][found.latents], plain_order)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    rows = random(40, 12).float()
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

    def key(rows: Tensor, **more: Any) -> dict[str, Any]:
        measure(rows, memo=memo, **{**PLAIN, **more})
        return asked[-1]

    rows = random(40, 6).float()
    through = values(measure(rows, memo=memo, **PLAIN))
    assert through == values(measure(rows, **PLAIN))
    same = [
        key(random(40, 6, seed=1).float()),
        *(key(rows, **more) for more in (
            {"composition": True}, {"purge": 0.8}, {"atoms": 3}, {"least": 0.7}, {"chance": 0.1},
        )),
    ]  # fmt: skip
    assert all(each == asked[0] for each in same)
    others = [
        key(rows[:39]), key(random(40, 7).float()),
        *(key(rows, **more) for more in (
            {"seed": 1}, {"k": 3}, {"width": 11}, {"steps": 9}, {"batch": 20}, {"lr": 1e-3},
            {"preset": "artifact"}, {"holdout": 0.3}, {"meta_seeds": 2},
        )),
    ]  # fmt: skip
    assert len({str(each) for each in [asked[0], *others]}) == len(others) + 1
    kept = measure(rows, memo=lambda key, make: {"0": 0.25}, **PLAIN)
    assert number(kept, "null_isotropic") == 0.25


def test_presets_are_trained_as_they_say(fits: list[Fitted]) -> None:
    rows = random(64, 6).float()
    quarter = PRESETS["quarter"]
    measure(rows, steps=1, composition=False)
    assert (fits[0].training.width, fits[0].training.k, fits[0].training.steps) == (16, 4, 1)
    assert (fits[0].training.batch, fits[0].training.lr) == (quarter.batch, quarter.lr)
    measure(rows, preset="paper", width=9, k=2, steps=2, batch=32, lr=0.01, composition=False)
    how = fits[-1].training
    assert (how.width, how.k, how.steps, how.batch, how.lr) == (9, 2, 2, 32, 0.01)


def test_the_test_of_composition_trains_so_that_meta_latents_stay_alive() -> None:
    how = Training(width=9, k=2, steps=7, batch=32, lr=0.01, aux_weight=0.0, unit_norm=False)
    found = with_few_dead(how)
    assert (found.width, found.k, found.steps, found.batch, found.lr) == (9, 2, 7, 32, 0.01)
    assert found.unit_norm
    assert found.aux_weight > 0


def test_meta_seeds_are_averaged_and_keep_other_rows_out() -> None:
    rows = random(40, 12).float()
    three = measure(rows, meta_seeds=3, **QUICK)
    for name in ("explained_variance", "composed_share", "null_isotropic"):
        score = three.scores[name]
        assert isinstance(score, Value)
        assert (score.n, score.unit) == (3, "meta-seed")
        assert score.stderr is not None
    single = measure(rows, **QUICK).scores["explained_variance"]
    assert isinstance(single, Value)
    assert single.stderr is None


def test_what_one_meta_seed_cannot_tell_all_cannot() -> None:
    assert meta_runs.over_runs([0.5, math.nan], "why") == Undefined("why")
    found = meta_runs.over_runs([0.5, 0.3, 0.4], "why")
    assert isinstance(found, Value)
    assert found.value == pytest.approx(0.4)
    assert found.stderr == pytest.approx(0.1 / 3**0.5)
    assert meta_runs.over_runs([0.5], "why") == Value(0.5, None, 1, "meta-seed")


def test_an_sae_without_a_live_latent_leaves_every_score_undefined() -> None:
    codes = Codes.from_dense(torch.zeros(5, 20))
    found = measure(random(20, 6).float(), codes)
    assert set(found.scores) == {score.name for score in meta_sae.scores}
    assert set(found.scores.values()) == {Undefined("no latent is live")}


def test_without_activations_a_note_says_that_all_latents_count() -> None:
    rows = random(40, 6).float()
    note = Mark("note", "no activations: every latent counts as live")
    assert measure(rows, **PLAIN).marks == (note,)
    assert measure(rows, Codes.from_dense(torch.ones(2, 40)), **PLAIN).marks == ()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "a meta-SAE of width 5 on 20 live decoder rows is narrower than 2k = 8"),
        ({"preset": "quater"}, "Did you mean 'quarter'"),
        ({"holdout": 1.0}, "holdout must be a share of the rows from 0 to below 1, got 1.0"),
        ({"holdout": -0.1}, "holdout must be a share of the rows from 0 to below 1, got -0.1"),
        (
            {"holdout": 0.99, "k": 2},
            "leaves 0 to train on and holds 20 out; each must be at least 2",
        ),
        (
            {"holdout": 0.05, "k": 2},
            "leaves 19 to train on and holds 1 out; each must be at least 2",
        ),
        ({"meta_seeds": 0}, "meta_seeds must be at least 1, got 0"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be a number above 0, got 0.0"),
        ({"lr": math.inf}, "lr must be a number above 0, got inf"),
        ({"purge": 1.2}, "meta_sae: purge must be a cosine from −1 to 1, got 1.2"),
        ({"purge": -1.2}, "meta_sae: purge must be a cosine from −1 to 1, got -1.2"),
        ({"atoms": 1}, "meta_sae: atoms must be 2 or more, got 1"),
        ({"least": 0.0}, "meta_sae: least must be a share of a row, above 0 and up to 1, got 0.0"),
        ({"gain": 1.2}, "meta_sae: gain must be a share of a row, above 0 and up to 1, got 1.2"),
        ({"chance": 1.2}, "meta_sae: chance must be a share of rows, 0 to 1, got 1.2"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CanonError, match="meta") as caught:
        measure(random(20, 6).float(), **settings)
    assert sentence in str(caught.value)


def test_the_width_of_a_quarter_is_rounded_up_as_upstream_does() -> None:
    assert [MetaTraining(preset="quarter").on(m).width for m in (512, 513, 514, 516)] == [
        128, 129, 129, 129
    ]  # fmt: skip
    assert MetaTraining(preset="paper").on(49152).width == 2304


def test_scaling_changes_few_of_the_numbers_that_are_trained_on() -> None:
    rows = random(512, 32).float()
    scale = torch.rand(512, 1, generator=generator(1)) * 5 + 0.1
    before, after = sorted_rows(rows), sorted_rows(rows * scale)
    unrounded = int((unit(rows).float() != unit(rows * scale).float()).sum())
    assert 20 * int((before != after).sum()) < unrounded
    assert torch.equal(before, sorted_rows(rows * 4))
