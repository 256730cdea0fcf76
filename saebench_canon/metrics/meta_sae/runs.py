"""What meta-SAEs of a decoder and of its nulls explain, and which rows kept out are their sums."""

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
from saebench_canon.kernels.seeds import generator
from saebench_canon.kernels.sum_rule import Rule
from saebench_canon.metrics.meta_sae.fits import fit
from saebench_canon.metrics.meta_sae.presets import alive, told
from saebench_canon.metrics.meta_sae.settings import Runs
from saebench_canon.metrics.meta_sae.tables import HEIGHT
from saebench_canon.metrics.shared.sums import CHANCE, COMPOSED, WHOLE, Number, composed
from saebench_canon.plugin.metric import Undefined, Value

Memo = Callable[[Mapping[str, Any], Callable[[], dict[str, float]]], dict[str, float]]

PLANTED = 4  # of so many rows one is a planted sum
SHARED = 16  # rows for each of the few directions that sums are planted of, and for each parent
FEWEST = 4  # of those directions, at least

OWN, COVARIANCE, CLUSTERS = "rows", "null_covariance", "null_clusters"
PARENT, SUMS = "null_parent", "planted"
NULLS = (PARENT, COVARIANCE, CLUSTERS)  # in the order of `CHANCE`


@dataclass(frozen=True)
class Study:
    """The scores of all runs, and how training went (meta_seed, of, step, loss)."""

    scores: dict[str, Number]
    convergence: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Split:
    """Which of m rows a run trains on, and which it keeps out, in their order."""

    kept: Tensor
    held: Tensor

    @classmethod
    def of(cls, m: int, holdout: float, seed: int, run: int) -> Split:
        """The split of one meta-seed."""
        order = torch.randperm(m, generator=generator(seed, "meta_sae", run, "holdout"))
        cut = round(holdout * m)
        return cls(order[cut:].sort().values, order[:cut].sort().values)

    def without(self, rows: Tensor, purge: float) -> Tensor:
        """The rows to train on that are not near one kept out."""
        cosine, _ = max_cosine(rows[self.kept], rows[self.held])
        return self.kept[cosine < purge]


@dataclass(frozen=True, eq=False)
class Tested:
    """What meta-latents explain of the rows kept out, [b, atoms] of each world, in one run.

    `lost` says why nothing was tested, where purging left too few rows.
    """

    explained: Mapping[str, Tensor]
    purged: float
    lost: str = ""


def study(
    rows: Tensor,
    how: Training,
    settings: Runs,
    rule: Rule,
    seed: int,
    memo: Memo | None,
) -> Study:
    """Train on the rows [m, d] and on their nulls alike, once for each meta-seed."""
    m, d = rows.shape
    holdout, meta_seeds = settings.holdout, settings.meta_seeds
    runs: list[dict[str, float]] = []
    tests: list[Tested] = []
    curves: list[pd.DataFrame] = []
    for run in range(meta_seeds):
        split = Split.of(m, holdout, seed, run)
        null = nulls.covariance_matched(rows, generator(seed, "meta_sae", run, "covariance"))
        tables = {OWN: rows, COVARIANCE: null.float()}
        models = _fits({name: each[split.kept] for name, each in tables.items()}, how, seed, run)
        own, chance = (_explained(models[name], tables[name], split, how.k) for name in tables)
        found = own | {f"null {name}": value for name, value in chance.items()}
        found["above_null"] = own["explained_variance"] - chance["explained_variance"]
        runs.append(found)
        curves.extend(_curve(model, run, name) for name, model in models.items())
        if settings.composition and len(split.held):
            tests.append(_test(tables, split, how, seed, run, rule.atoms, settings.purge))

    def isotropic() -> dict[str, float]:
        explained = {}
        for run in range(meta_seeds):
            split = Split.of(m, holdout, seed, run)
            null = nulls.isotropic(m, d, generator(seed, "meta_sae", run, "isotropic")).float()
            model = _fits({"isotropic": null[split.kept]}, how, seed, run)["isotropic"]
            explained[str(run)] = _explained(model, null, split, how.k)["explained_variance"]
        return explained

    key = {"name": "meta_sae isotropic", "version": 2, "m": m, "d": d, "seed": seed}
    key |= {"training": told(how), "holdout": holdout, "meta_seeds": meta_seeds}
    random = isotropic() if memo is None else memo(key, isotropic)
    held = "no row is held out" if round(holdout * m) == 0 else "the rows held out do not vary"
    flat = "the decoder rows do not vary"

    def mean(name: str, reason: str = flat) -> Value | Undefined:
        return over_runs([run[name] for run in runs], reason)

    scores: dict[str, Number] = {
        "explained_variance": mean("explained_variance"),
        "explained_variance_uncentred": mean("explained_variance_uncentred"),
        "mse": mean("mse"),
        "heldout_explained_variance": mean("heldout_explained_variance", held),
        "heldout_null": mean("null heldout_explained_variance", held),
        "null_isotropic": over_runs(list(random.values()), "the random rows do not vary"),
        "null_covariance": mean("null explained_variance"),
        "above_null": mean("above_null"),
        "meta_l0": mean("meta_l0"),
        "meta_dead_share": mean("meta_dead_share"),
        **_composition(tests, rule, held if settings.composition else "composition = false"),
    }
    return Study(scores, pd.concat(curves, ignore_index=True))


def _fits(tables: Mapping[str, Tensor], how: Training, seed: int, run: int) -> dict[str, MetaSAE]:
    title = "rows and their nulls" if len(tables) > 1 else "random rows"
    fits = fit(list(tables.values()), how, seed, run, "training", what=title)
    return dict(zip(tables, fits, strict=True))


def _explained(model: MetaSAE, rows: Tensor, split: Split, k: int) -> dict[str, float]:
    """What the meta-SAE makes of the rows that it was trained on and of those kept out."""
    heldout = math.nan
    if len(split.held):
        unseen = rows[split.held]
        parts = [each[None] for each in torch.split(unseen, HEIGHT)]
        guessed = torch.cat([model.decode(model.encode_largest(each, k)) for each in parts], dim=1)
        (heldout,) = explained_variance(unseen[None], guessed, centred=True)
    return {**_read(model, rows[split.kept]), "heldout_explained_variance": heldout}


def evaluated(model: MetaSAE, rows: Tensor) -> dict[str, Value | Undefined]:
    """What a meta-SAE that was trained elsewhere makes of all rows [m, d]."""
    flat = "the decoder rows do not vary"
    return {name: over_runs([value], flat) for name, value in _read(model, rows).items()}


def _read(model: MetaSAE, rows: Tensor) -> dict[str, float]:
    """What the meta-SAE makes of rows [n, d] at its threshold, some of them at a time."""
    rebuilt, active = [], torch.zeros(model.W_dec.shape[1], dtype=torch.bool)
    count = 0
    for part in torch.split(rows, HEIGHT):
        codes = model.encode(part[None])
        rebuilt.append(model.decode(codes)[0])
        count += int((codes > 0).sum())
        active |= (codes[0] > 0).any(dim=0)
    seen, guess = rows[None], torch.cat(rebuilt)[None]
    return {
        "explained_variance": explained_variance(seen, guess, centred=True)[0],
        "explained_variance_uncentred": explained_variance(seen, guess, centred=False)[0],
        "mse": float((seen.double() - guess.double()).square().mean()),
        "meta_l0": count / len(rows),
        "meta_dead_share": float((~active).double().mean()),
    }


def _test(
    tables: Mapping[str, Tensor],
    split: Split,
    how: Training,
    seed: int,
    run: int,
    atoms: int,
    purge: float,
) -> Tested:
    """Which rows kept out are sums of meta-latents, in the decoder and in its nulls.

    Rows near one kept out are not trained on, lest it be recognised rather than composed; all are
    then trained on as many rows as there are where most are left out.
    """
    rows = tables[OWN]
    m = len(rows)

    def draws(purpose: str) -> torch.Generator:
        return generator(seed, "meta_sae", run, purpose)

    few = max(FEWEST, m // SHARED)
    shared = nulls.covariance_matched(rows, draws("shared directions"), count=few)
    planted = rows.clone()
    places = torch.randperm(m, generator=draws("planted places"))[: m // PLANTED]
    planted[places] = planted_sums(shared, len(places), draws("planted")).float()
    parents = one_parent(rows, max(1, m // SHARED), draws("parents")).float()
    worlds = {**tables, CLUSTERS: parents, SUMS: planted}
    left = {name: split.without(each, purge) for name, each in worlds.items()}
    count = min(len(each) for each in left.values())
    purged = 1 - len(left[OWN]) / len(split.kept)
    if count < 2 * how.k:
        lost = f"{count} rows are left to train on besides those near rows kept out"
        return Tested({}, purged, lost)
    chosen = {
        name: each[torch.randperm(len(each), generator=draws(f"left {name}"))[:count].sort().values]
        for name, each in left.items()
    }
    kept = {name: worlds[name][at] for name, at in chosen.items()}
    models = _fits(kept, alive(how), seed, run)
    explained = {}
    for name, model in models.items():
        about = (worlds[name][split.held].double() - model.b_dec[0].double()).float()
        if name == SUMS:
            about = about[torch.isin(split.held, places)]
        own, parent = pursue_with_null(about, model.W_dec[0], atoms, draws("parent null"))
        explained[name] = own.explained
        if name == OWN:
            explained[PARENT] = parent.explained
    return Tested(explained, purged)


def _composition(tests: Sequence[Tested], rule: Rule, untested: str) -> dict[str, Number]:
    """Which rows kept out are sums, mean over the runs; `untested` says why there are no tests."""
    names = (*COMPOSED, "purged_share", "planted_recall")
    if not tests:
        return dict.fromkeys(names, Undefined(untested))
    purged = over_runs([each.purged for each in tests], "no run")
    lost = next((each.lost for each in tests if each.lost), "")
    if lost:
        return {**dict.fromkeys(names, Undefined(lost)), "purged_share": purged}
    raised = rule.raised([torch.cat([each.explained[name] for each in tests]) for name in NULLS])

    def share(of: str) -> Number:
        if not raised.possible:
            return Undefined(WHOLE)
        sums = [raised.holds(each.explained[of]).double() for each in tests]
        shares = [float(each.mean()) for each in sums if len(each)]
        return over_runs(shares or [math.nan], "no planted sum was kept out")

    return {
        **composed(share(OWN), {name: share(of) for name, of in zip(CHANCE, NULLS, strict=True)}),
        "composed_least": raised.least,
        "purged_share": purged,
        "planted_recall": share(SUMS),
    }


def over_runs(values: list[float], reason: str) -> Value | Undefined:
    """The mean over meta-seeds; undefined when any of them is."""
    if not all(math.isfinite(value) for value in values):
        return Undefined(reason)
    count, middle = len(values), math.fsum(values) / len(values)
    if count == 1:
        return Value(middle, None, 1, "meta-seed")
    spread = math.fsum((value - middle) ** 2 for value in values) / (count - 1)
    return Value(middle, math.sqrt(spread / count), count, "meta-seed")


def _curve(model: MetaSAE, run: int, of: str) -> pd.DataFrame:
    """How the loss fell: the mean of ‖w − ŵ‖² over the batches of some steps."""
    if model.curve_step is None or model.curve_loss is None:
        return pd.DataFrame({"meta_seed": [], "of": [], "step": [], "loss": []})
    return pd.DataFrame({
        "meta_seed": run,
        "of": of,
        "step": model.curve_step.numpy(),
        "loss": model.curve_loss[:, 0].double().numpy(),
    })  # fmt: skip
