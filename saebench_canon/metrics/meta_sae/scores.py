"""How well meta-SAEs explain a decoder and its nulls, and which held-out rows are sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels import nulls
from saebench_canon.kernels.composition import one_parent, planted_sums, pursue_with_null
from saebench_canon.kernels.cosine import max_cosine
from saebench_canon.kernels.meta_sae import MetaSAE, explained_variance
from saebench_canon.kernels.meta_training import Training
from saebench_canon.kernels.random_generators import generator
from saebench_canon.kernels.sum_rule import Rule
from saebench_canon.metrics.meta_sae.fits import fit
from saebench_canon.metrics.meta_sae.presets import training_key, with_few_dead
from saebench_canon.metrics.meta_sae.settings import Runs
from saebench_canon.metrics.meta_sae.tables import HEIGHT
from saebench_canon.metrics.shared.sums import CHANCE, COMPOSED, WHOLE, Number, composed
from saebench_canon.plugin.metric import Undefined, Value

Memo = Callable[[Mapping[str, Any], Callable[[], dict[str, float]]], dict[str, float]]

PLANTED = 4  # one row in this many is a planted sum
SHARED = 16  # rows for each of the few directions that sums are planted of, and for each parent
FEWEST = 4  # the least number of those directions

DECODER, COVARIANCE, CLUSTERS = "rows", "null_covariance", "null_clusters"
PARENT, SUMS = "null_parent", "planted"
NULLS = (PARENT, COVARIANCE, CLUSTERS)  # in the order of `CHANCE`


@dataclass(frozen=True)
class Study:
    """The scores over all runs, and the course of training (meta_seed, of, step, loss)."""

    scores: dict[str, Number]
    convergence: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Split:
    """The indices of the rows that a run trains on and of those that it holds out, sorted."""

    train: Tensor
    heldout: Tensor

    @classmethod
    def of(cls, m: int, holdout: float, seed: int, run: int) -> Split:
        """The split of one meta-seed."""
        order = torch.randperm(m, generator=generator(seed, "meta_sae", run, "holdout"))
        cut = round(holdout * m)
        return cls(order[cut:].sort().values, order[:cut].sort().values)

    def purged(self, rows: Tensor, purge: float) -> Tensor:
        """The indices of the rows to train on that are not near a held-out row."""
        cosine, _ = max_cosine(rows[self.train], rows[self.heldout])
        return self.train[cosine < purge]


@dataclass(frozen=True, eq=False)
class SumTest:
    """How much meta-latents explain of one run's held-out rows, [b, atoms], for each table.

    `reason` says why nothing was tested, where purging leaves too few rows.
    """

    explained: Mapping[str, Tensor]
    purged_share: float
    reason: str = ""


def study(
    rows: Tensor,
    training: Training,
    settings: Runs,
    rule: Rule,
    seed: int,
    memo: Memo | None,
) -> Study:
    """Train on the rows [m, d] and on their nulls in the same way, once for each meta-seed."""
    m, d = rows.shape
    holdout, meta_seeds = settings.holdout, settings.meta_seeds
    runs: list[dict[str, float]] = []
    tests: list[SumTest] = []
    curves: list[pd.DataFrame] = []
    for run in range(meta_seeds):
        split = Split.of(m, holdout, seed, run)
        null = nulls.covariance_matched(rows, generator(seed, "meta_sae", run, "covariance"))
        tables = {DECODER: rows, COVARIANCE: null.float()}
        train_tables = {name: table[split.train] for name, table in tables.items()}
        models = _fits(train_tables, training, seed, run)
        real, chance = (
            _fit_scores(models[name], tables[name], split, training.k) for name in tables
        )
        scores_of_run = real | {f"null {name}": value for name, value in chance.items()}
        scores_of_run["above_null"] = real["explained_variance"] - chance["explained_variance"]
        runs.append(scores_of_run)
        curves.extend(_curve(model, run, name) for name, model in models.items())
        if settings.composition and len(split.heldout):
            tests.append(_test_sums(tables, split, training, seed, run, rule.atoms, settings.purge))

    def isotropic() -> dict[str, float]:
        explained = {}
        for run in range(meta_seeds):
            split = Split.of(m, holdout, seed, run)
            null = nulls.isotropic(m, d, generator(seed, "meta_sae", run, "isotropic")).float()
            model = _fits({"isotropic": null[split.train]}, training, seed, run)["isotropic"]
            explained[str(run)] = _fit_scores(model, null, split, training.k)["explained_variance"]
        return explained

    key = {"name": "meta_sae isotropic", "version": 2, "m": m, "d": d, "seed": seed}
    key |= {"training": training_key(training), "holdout": holdout, "meta_seeds": meta_seeds}
    random = isotropic() if memo is None else memo(key, isotropic)
    flat_heldout = "the held-out rows do not vary"
    if round(holdout * m) == 0:
        flat_heldout = "no row is held out"
    flat = "the decoder rows do not vary"

    def mean(name: str, reason: str = flat) -> Value | Undefined:
        return over_runs([run[name] for run in runs], reason)

    scores: dict[str, Number] = {
        "explained_variance": mean("explained_variance"),
        "explained_variance_uncentred": mean("explained_variance_uncentred"),
        "mse": mean("mse"),
        "heldout_explained_variance": mean("heldout_explained_variance", flat_heldout),
        "heldout_null": mean("null heldout_explained_variance", flat_heldout),
        "null_isotropic": over_runs(list(random.values()), "the random rows do not vary"),
        "null_covariance": mean("null explained_variance"),
        "above_null": mean("above_null"),
        "meta_l0": mean("meta_l0"),
        "meta_dead_share": mean("meta_dead_share"),
        **_composition(
            tests, rule, flat_heldout if settings.composition else "composition = false"
        ),
    }
    return Study(scores, pd.concat(curves, ignore_index=True))


def _fits(
    tables: Mapping[str, Tensor], training: Training, seed: int, run: int
) -> dict[str, MetaSAE]:
    title = "rows and their nulls" if len(tables) > 1 else "random rows"
    fits = fit(list(tables.values()), training, seed, run, "training", title=title)
    return dict(zip(tables, fits, strict=True))


def _fit_scores(model: MetaSAE, rows: Tensor, split: Split, k: int) -> dict[str, float]:
    """The meta-SAE's scores on the rows that it was trained on and on the held-out rows."""
    heldout = math.nan
    if len(split.heldout):
        unseen = rows[split.heldout]
        parts = [part[None] for part in torch.split(unseen, HEIGHT)]
        rebuilt = torch.cat([model.decode(model.encode_largest(part, k)) for part in parts], dim=1)
        (heldout,) = explained_variance(unseen[None], rebuilt, centred=True)
    return {**_scores(model, rows[split.train]), "heldout_explained_variance": heldout}


def evaluated(model: MetaSAE, rows: Tensor) -> dict[str, Value | Undefined]:
    """The scores of a meta-SAE that was trained elsewhere, on all rows [m, d]."""
    flat = "the decoder rows do not vary"
    return {name: over_runs([value], flat) for name, value in _scores(model, rows).items()}


def _scores(model: MetaSAE, rows: Tensor) -> dict[str, float]:
    """The meta-SAE's scores on rows [n, d] at its threshold; a part of the rows at a time."""
    parts, active = [], torch.zeros(model.W_dec.shape[1], dtype=torch.bool)
    count = 0
    for part in torch.split(rows, HEIGHT):
        codes = model.encode(part[None])
        parts.append(model.decode(codes)[0])
        count += int((codes > 0).sum())
        active |= (codes[0] > 0).any(dim=0)
    original, rebuilt = rows[None], torch.cat(parts)[None]
    return {
        "explained_variance": explained_variance(original, rebuilt, centred=True)[0],
        "explained_variance_uncentred": explained_variance(original, rebuilt, centred=False)[0],
        "mse": float((original.double() - rebuilt.double()).square().mean()),
        "meta_l0": count / len(rows),
        "meta_dead_share": float((~active).double().mean()),
    }


def _test_sums(
    tables: Mapping[str, Tensor],
    split: Split,
    training: Training,
    seed: int,
    run: int,
    atoms: int,
    purge: float,
) -> SumTest:
    """How far held-out rows are sums of meta-latents, in the decoder and in its nulls.

    Rows near a held-out row are not trained on, so that it must be composed and cannot just be
    recognised. All tables are then trained on the same number of rows: the least that is left.
    """
    rows = tables[DECODER]
    m = len(rows)

    def draws(purpose: str) -> torch.Generator:
        return generator(seed, "meta_sae", run, purpose)

    few = max(FEWEST, m // SHARED)
    shared = nulls.covariance_matched(rows, draws("shared directions"), count=few)
    planted = rows.clone()
    sums = torch.randperm(m, generator=draws("planted places"))[: m // PLANTED]
    planted[sums] = planted_sums(shared, len(sums), draws("planted")).float()
    parents = one_parent(rows, max(1, m // SHARED), draws("parents")).float()
    tables = {**tables, CLUSTERS: parents, SUMS: planted}
    train = {name: split.purged(table, purge) for name, table in tables.items()}
    count = min(len(indices) for indices in train.values())
    purged_share = 1 - len(train[DECODER]) / len(split.train)
    if count < 2 * training.k:
        reason = f"purging rows near held-out rows leaves {count} rows to train on"
        return SumTest({}, purged_share, reason)
    train_tables = {}
    for name, indices in train.items():
        order = torch.randperm(len(indices), generator=draws(f"left {name}"))
        train_tables[name] = tables[name][indices[order[:count].sort().values]]
    models = _fits(train_tables, with_few_dead(training), seed, run)
    explained = {}
    for name, model in models.items():
        centred = (tables[name][split.heldout].double() - model.b_dec[0].double()).float()
        if name == SUMS:
            centred = centred[torch.isin(split.heldout, sums)]
        pursuit, parent = pursue_with_null(centred, model.W_dec[0], atoms, draws("parent null"))
        explained[name] = pursuit.explained
        if name == DECODER:
            explained[PARENT] = parent.explained
    return SumTest(explained, purged_share)


def _composition(tests: Sequence[SumTest], rule: Rule, untested: str) -> dict[str, Number]:
    """Scores of the held-out rows that are sums; `untested` says why there are no tests."""
    names = (*COMPOSED, "purged_share", "planted_recall")
    if not tests:
        return dict.fromkeys(names, Undefined(untested))
    purged = over_runs([test.purged_share for test in tests], "no run")
    reason = next((test.reason for test in tests if test.reason), "")
    if reason:
        return {**dict.fromkeys(names, Undefined(reason)), "purged_share": purged}
    raised = rule.raised([torch.cat([test.explained[name] for test in tests]) for name in NULLS])

    def share(table: str) -> Number:
        if not raised.possible:
            return Undefined(WHOLE)
        sums = [raised.holds(test.explained[table]).double() for test in tests]
        shares = [float(are_sums.mean()) for are_sums in sums if len(are_sums)]
        return over_runs(shares or [math.nan], "no planted sum is held out")

    return {
        **composed(
            share(DECODER), {name: share(null) for name, null in zip(CHANCE, NULLS, strict=True)}
        ),
        "composed_least": raised.least,
        "purged_share": purged,
        "planted_recall": share(SUMS),
    }


def over_runs(values: list[float], reason: str) -> Value | Undefined:
    """The mean over meta-seeds; undefined when any of them is."""
    if not all(math.isfinite(value) for value in values):
        return Undefined(reason)
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return Value(mean, None, 1, "meta-seed")
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Value(mean, math.sqrt(variance / count), count, "meta-seed")


def _curve(model: MetaSAE, run: int, table: str) -> pd.DataFrame:
    """The course of the loss: the mean of ‖w − ŵ‖² over the batch of some steps."""
    if model.curve_step is None or model.curve_loss is None:
        return pd.DataFrame({"meta_seed": [], "of": [], "step": [], "loss": []})
    return pd.DataFrame({
        "meta_seed": run,
        "of": table,
        "step": model.curve_step.numpy(),
        "loss": model.curve_loss[:, 0].double().numpy(),
    })  # fmt: skip
