"""Whether an SAE finds the features of a world, and what became of those that it does not find."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.metrics.truth.cost import cost
from saebench_canon.plugin.metric import Mark, Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from saebench_canon.kernels.codes import Codes
    from saebench_canon.metrics.truth.comparison import Comparison
    from saebench_canon.metrics.truth.rows import Rows
    from saebench_canon.plugin.metric import Unit
    from saebench_canon.plugin.sae import CanonicalSAE
    from saebench_canon.plugin.world import TrueFeatures

OTHERS = "these activations hold features that are not known"
OF_LATENTS = ("precision", "composed_share", "duplicate_share")
CENTRED = ("recovery", "recall", "precision")
LACKING = {
    "absorbed_share": "no feature of this world needs another one",
    "recovery_one_to_one": "more features or latents than exact_up_to",
}


HEADLINES = ("recovery", "recall", "precision", "firing_f1", "composed_share")
HIGHER = {
    "recovery": "Mean over features of the largest cosine with a live latent.",
    "recall": "Share of features that a latent is (cosine ≥ .9).",
    "precision": "Share of live latents that are a feature (cosine ≥ .9).",
    "firing_f1": "Mean over features of the best latent's F1.",
    "recovery_one_to_one": "recovery with a latent of its own for each feature.",
    "recovery_centred": "recovery without the direction that rows share.",
    "recall_centred": "recall without the direction that rows share.",
    "precision_centred": "precision without the direction that rows share.",
}
LOWER = {
    "composed_share": "Share of live latents that are sums of features.",
    "missing_share": "Share of features whose cosine with every latent is below .7.",
    "duplicate_share": "Share of live latents beyond the first of a feature.",
    "split_share": "Share of features whose tokens several latents share.",
    "absorbed_share": "Share of parents whose latent is silent where a child fires.",
}


def _scores() -> Iterator[Score]:
    """Each score, and its null."""
    for better, helps in (("higher", HIGHER), ("lower", LOWER)):
        for name, text in helps.items():
            yield Score(
                name,
                better="higher" if better == "higher" else "lower",
                null=f"{name}_null",
                help=text,
                headline=name in HEADLINES,
            )
            yield Score(f"{name}_null", help=f"{name} of random rows of the same covariance.")


@metric(of="sae", version=2, cost=cost, scores=list(_scores()))
def truth(
    sae: CanonicalSAE,
    codes: Codes,
    features: TrueFeatures,
    seed: int = 0,
    *,
    found: float = 0.9,
    near: float = 0.7,
    atoms: int = 4,
    least: float = 0.6,
    gain: float = 0.2,
    gate: float = 1.6,
    draws: int = 3,
    exact_up_to: int = 8192,
) -> Measurement:
    """Whether an SAE finds the features of a world (ours).

    A live latent is a feature from a cosine of `found` on, and about one from `near` on. It is a
    sum of features iff up to `atoms` of them, with weights ≥ 0, explain the share `least` of its
    row and `gain` more than the first does, and their squared weights sum to `gate` at most. Nulls
    are means over `draws` of random rows of the same covariance; for `firing_f1` the same codes on
    shuffled tokens. `exact_up_to` is the number of features or latents up to which they are
    assigned to one another. Standard errors are over features or latents, of this SAE.
    """
    import torch

    from saebench_canon.kernels.nulls import covariance_matched
    from saebench_canon.kernels.random_generators import generator
    from saebench_canon.metrics.shared.live_rows import live_rows
    from saebench_canon.metrics.truth.comparison import beside
    from saebench_canon.metrics.truth.rows import Rule

    if not 0 < near <= found <= 1:
        raise CanonError(f"truth: near and found must be cosines in order, got {near} and {found}")
    if atoms < 2 or draws < 1:
        raise CanonError(f"truth: needs 2 atoms and 1 draw at least, got {atoms} and {draws}")
    rule = Rule(found, near, atoms, least, gain, gate, exact_up_to)
    live = live_rows(sae, codes)
    silent = len(features)
    features, numbers = features.that_fire()
    silent -= len(features)
    if len(live) == 0 or len(features) == 0:
        reason = "no latent is live" if len(features) else "no feature fires"
        return Measurement({score.name: Undefined(reason) for score in truth.scores})
    latent_codes = _columns(codes, live.latents)
    comparison = beside(features, live.rows, latent_codes, rule)
    scores = _means(_parts(comparison))
    nulls = []
    for draw in range(draws):
        random = covariance_matched(live.rows, generator(seed, "truth", "rows", draw))
        order = torch.randperm(len(codes), generator=generator(seed, "truth", "tokens", draw))
        by_chance = beside(features, random, latent_codes.at(order), rule)
        nulls.append(_means(_parts(by_chance)))
    for name in list(scores):
        scores[f"{name}_null"] = _mean_of(nulls, name)
    tables = {
        "features": _features_table(comparison, numbers, live.latents),
        "latents": _latents_table(comparison.rows, numbers, live.latents),
    }
    return Measurement(scores, tables, _marks(features.rows, live.rows, silent))


def _columns(codes: Codes, latents: Tensor) -> Codes:
    """The codes of these latents only, numbered in their order."""
    import torch

    from saebench_canon.kernels.codes import Codes

    number = torch.full((codes.width,), -1, dtype=torch.int64)
    number[latents] = torch.arange(len(latents))
    codes = codes.to("cpu")
    return Codes(codes.indptr, number[codes.indices.long()], codes.values, len(latents))


def _parts(comparison: Comparison) -> dict[str, Tensor | None]:
    """What each score is the mean of; None for one that this world cannot have."""
    rows, parents = comparison.rows, comparison.parents
    parts: dict[str, Tensor | None] = {
        **rows.scores(),
        "recovery_one_to_one": rows.matched,
        "firing_f1": comparison.f1,
        "split_share": comparison.split,
        "absorbed_share": comparison.absorbed[parents] if len(parents) else None,
    }
    centred = None if comparison.centred is None else comparison.centred.scores()
    for name in CENTRED:
        parts[f"{name}_centred"] = None if centred is None else centred[name]
    if comparison.features.others:
        parts |= dict.fromkeys((*OF_LATENTS, "precision_centred"))
    return parts


def _means(parts: Mapping[str, Tensor | None]) -> dict[str, float | Value | Undefined]:
    """The mean of each part, with its standard error over features or latents."""
    return {
        name: Undefined(_lacking(name))
        if part is None
        else _value(part.double(), "latent" if _bare(name) in OF_LATENTS else "feature")
        for name, part in parts.items()
    }


def _lacking(name: str) -> str:
    """Why a score has no number."""
    if name in LACKING:
        return LACKING[name]
    others = name == "precision_centred" or name in OF_LATENTS
    return OTHERS if others else "no latent is more than the direction that rows share"


def _bare(name: str) -> str:
    return name.removesuffix("_centred")


def _value(part: Tensor, unit: Unit) -> Value:
    count = len(part)
    stderr = float(part.std()) / math.sqrt(count) if count > 1 else None
    return Value(float(part.mean()), stderr, count, unit)


def _mean_of(
    draws: Sequence[Mapping[str, float | Value | Undefined]], name: str
) -> Value | Undefined:
    values = [draw[name] for draw in draws]
    numbers = [value.value for value in values if isinstance(value, Value)]
    if len(numbers) < len(values):
        return Undefined(_lacking(name))
    return Value(math.fsum(numbers) / len(numbers), None, len(numbers), "draw")


def _features_table(comparison: Comparison, numbers: Tensor, latents: Tensor) -> pd.DataFrame:
    """One row for each feature: its density, the latent of the largest cosine, and its fate."""
    import pandas as pd

    rows, centred, features = comparison.rows, comparison.centred, comparison.features
    best, nearest = rows.cosines.max(dim=1)
    fates = _first_of(
        len(best),
        {
            "found": best >= rows.rule.found,
            "composed": comparison.sums,
            "split": comparison.split,
            "absorbed": comparison.absorbed,
            "near": best >= rows.rule.near,
        },
        "missing",
    )
    return pd.DataFrame(
        {
            "feature": numbers.tolist(),
            "name": list(features.names),
            "density": features.density.tolist(),
            "cosine": best.tolist(),
            "cosine_centred": 0.0 if centred is None else centred.best.tolist(),
            "latent": latents[nearest].tolist(),
            "f1": comparison.f1.tolist(),
            "fate": fates,
        }
    )


def _latents_table(rows: Rows, numbers: Tensor, latents: Tensor) -> pd.DataFrame:
    """One row for each live latent: the feature of the largest cosine, its fate, its summands."""
    import pandas as pd

    cosine, feature = rows.cosines.max(dim=0)
    duplicate = rows.duplicates
    fates = _first_of(
        len(latents),
        {
            "found": (cosine >= rows.rule.found) & ~duplicate,
            "duplicate": duplicate,
            "composed": rows.sums,
            "near": cosine >= rows.rule.near,
        },
        "other",
    )
    table = pd.DataFrame(
        {
            "latent": latents.tolist(),
            "feature": numbers[feature].tolist(),
            "cosine": cosine.tolist(),
            "fate": fates,
            "sum_of": _sums_of(rows, numbers),
        }
    )
    return table.sort_values("latent", ignore_index=True)


def _sums_of(rows: Rows, numbers: Tensor) -> list[list[int]]:
    """The features that each latent is a sum of; none for a latent that is no sum."""
    return [
        [int(numbers[part]) for part in parts if part >= 0] if is_sum else []
        for parts, is_sum in zip(rows.parts.tolist(), rows.sums.tolist(), strict=True)
    ]


def _first_of(count: int, masks: Mapping[str, Tensor], otherwise: str) -> list[str]:
    """The name of the first mask that holds, for each of `count`."""
    fates = [otherwise] * count
    for name, mask in reversed(list(masks.items())):
        for number in mask.nonzero()[:, 0].tolist():
            fates[number] = name
    return fates


def _marks(features: Tensor, latents: Tensor, silent: int) -> tuple[Mark, ...]:
    """Notes on features that do not fire, and on a direction that rows share."""
    from saebench_canon.kernels.common_direction import centred, shares_direction

    notes = []
    if silent:
        count = f"{silent:,} of {silent + len(features):,} features"
        notes.append(Mark("note", f"{count} never fire on these tokens and do not count"))

    owners = [
        name
        for name, rows in (("features", features), ("latents", latents))
        if shares_direction(rows)
    ]
    if owners:
        lost = int((~centred(latents)[1]).sum())
        dropped = f", and without {lost} latents that are nothing else" if lost else ""
        reason = f"the rows of the {' and the '.join(owners)} share a direction"
        notes.append(Mark("note", f"{reason}; centred scores are without it{dropped}"))
    return tuple(notes)
