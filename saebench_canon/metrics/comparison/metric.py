"""What each latent of two SAEs is in the other one: found, a sum of its latents, or missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from saebench_canon.kernels.sum_rule import Rule
from saebench_canon.metrics.comparison.cost import cost
from saebench_canon.metrics.comparison.settings import Cosines
from saebench_canon.metrics.shared.pairs import SAEPair
from saebench_canon.metrics.shared.sums import check_rule
from saebench_canon.plugin.metric import Mark, Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    import pandas as pd

    from saebench_canon.metrics.comparison.relation import Relation
    from saebench_canon.metrics.shared.dictionary import Dictionary

Number = float | Value | Undefined
CENTRED = "_centred"
OF_ROWS = {  # of the larger's latents in the smaller; of the smaller's in the larger with `_small`
    "found_share": "Share of latents with a cosine of θ or more in the other SAE.",
    "missing_share": "Share of latents that are neither found nor sums of the other's.",
    "sum_share": "Share of latents that are sums of the other's.",
    "sum_share_parent": "The same of rows that keep their part along the best atom only.",
    "sum_least": "Share of a row to be explained in a sum, raised by chance.",
    "planted_recall": "Share of planted sums of the other's rows that are found.",
    "chance_residual": "Share that the other's rows leave of random rows, 5th percentile.",
}
OF_SAE = {
    "distinct": "Live latents without duplicates.",
    "duplicates": "Live latents that are duplicates of another (cosine ≥ .95).",
    "mean_row_norm": "Length of the mean of the unit rows; long where rows share a direction.",
}


def _scores() -> Iterator[Score]:
    for end, whose in (("", "the larger SAE's"), ("_small", "the smaller SAE's")):
        for name, text in OF_ROWS.items():
            yield Score(
                f"{name}{end}", help=f"{text} Of {whose}.",
                headline=name in ("found_share", "missing_share") and not end,
            )  # fmt: skip
            yield Score(f"{name}{end}{CENTRED}", help=f"{name} without the common direction.")
    for end, whose in (("_large", "the larger SAE"), ("_small", "the smaller SAE")):
        for name, text in OF_SAE.items():
            yield Score(f"{name}{end}", help=f"{text} Of {whose}.", digits=2)


@metric(of="pair", version=1, cost=cost, scores=list(_scores()))
def comparison(
    both: SAEPair,
    seed: int = 0,
    *,
    cosines: Cosines = Cosines(),
    rule: Rule = Rule(),
) -> Measurement:
    """What each latent of two SAEs is in the other: found, a sum, or missing (ours).

    Of duplicates, one latent stands for all. A latent is found iff its largest cosine with a live
    row of the other SAE is `threshold` or more, and a sum iff at most `atoms` rows with weights ≥ 0
    explain `least` of it and `gain` more than the first does; `least` is raised where more than
    `chance` of a null's rows would be sums. It is missing iff it is not found and they leave more
    than `residual`. A fit whose squared weights sum to more than `gate` cancels: it explains
    nothing, and of a missing latent its first atom counts alone. Centred scores are without the
    mean of each SAE's rows.
    """
    from saebench_canon.metrics.comparison.relation import random_rows, relate
    from saebench_canon.metrics.comparison.start import start_of
    from saebench_canon.metrics.shared.dictionary import dictionary_of

    cosines.check()
    check_rule("comparison", rule)
    sides = {
        "small": dictionary_of(both.small, both.small_codes),
        "large": dictionary_of(both.large, both.large_codes),
    }
    scores: dict[str, Number] = {
        f"{name}_{side}": value
        for side, dictionary in sides.items()
        for name, value in _of_sae(dictionary).items()
    }
    silent = [side for side, dictionary in sides.items() if len(dictionary) == 0]
    if silent:
        reason = f"no latent of the {silent[0]}er SAE is live".replace("largeer", "larger")
        lost = {s.name: Undefined(reason) for s in comparison.scores if s.name not in scores}
        return Measurement({**scores, **lost}, marks=both.marks)
    columns: dict[str, pd.DataFrame] = {}
    for view in ("", CENTRED):
        seen = {side: d.centred() if view else d for side, d in sides.items()}
        drawn = {side: random_rows(d, seed) for side, d in seen.items() if len(d)}
        for side, other in (("large", "small"), ("small", "large")):
            end = f"{'' if side == 'large' else '_small'}{view}"
            if len(drawn) < len(seen):
                nothing = Undefined("no latent is more than the direction that rows share")
                scores |= {f"{name}{end}": nothing for name in OF_ROWS}
                continue
            relation = relate(seen[side], seen[other], drawn[side], rule, cosines.gate, seed)
            scores |= {
                f"{name}{end}": value for name, value in _of_rows(relation, cosines, rule).items()
            }
            table = _table(relation, seen[side], seen[other], view)
            columns[side] = table if side not in columns else columns[side].join(table)
    tables = {side: table.sort_index().reset_index() for side, table in columns.items()}
    codes = (both.small_codes, both.large_codes)
    tables["start"] = start_of(sides["small"], sides["large"], codes, cosines.threshold)
    return Measurement(scores, tables, (*both.marks, *_marks(sides)))


def _of_sae(dictionary: Dictionary) -> dict[str, Number]:
    none = len(dictionary) == 0
    return {
        "distinct": float(len(dictionary)),
        "duplicates": float(dictionary.duplicates),
        "mean_row_norm": Undefined("no latent is live") if none else dictionary.mean_norm,
    }


def _of_rows(relation: Relation, cosines: Cosines, rule: Rule) -> dict[str, Number]:
    found = relation.cosine >= cosines.threshold
    missing = ~found & (relation.fitted.residual > cosines.residual)
    return {
        "found_share": float(found.double().mean()),
        "missing_share": float(missing.double().mean()),
        "sum_share": relation.fitted.share(rule),
        "sum_share_parent": relation.parent,
        "sum_least": relation.least,
        "planted_recall": relation.recall,
        "chance_residual": relation.low,
    }


def _table(relation: Relation, rows: Dictionary, others: Dictionary, view: str) -> pd.DataFrame:
    """One line for each representative: its nearest row, and what a sum of rows explains."""
    import pandas as pd

    from saebench_canon.metrics.shared.fitted import fit_columns

    table = {
        "nearest": others.every_latent[relation.nearest].tolist(),
        "cosine": relation.cosine.tolist(),
        **fit_columns(relation.fitted, relation.pursuit, others.latents),
    }
    index = pd.Index(rows.latents.tolist(), name="latent")
    return pd.DataFrame({f"{name}{view}": column for name, column in table.items()}, index=index)


def _marks(sides: dict[str, Dictionary]) -> Iterator[Mark]:
    for side, dictionary in sides.items():
        if dictionary.shares_direction:
            yield Mark("note", f"the {side} SAE's rows share a direction")
