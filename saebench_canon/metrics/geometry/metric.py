"""How the decoder rows of one SAE lie to one another: duplicates, neighbours, and own sums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.kernels.sum_rule import Rule
from saebench_canon.metrics.geometry.cost import cost
from saebench_canon.metrics.shared.pairs import NO_CODES
from saebench_canon.metrics.shared.sums import check_rule
from saebench_canon.plugin.metric import Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    import pandas as pd

    from saebench_canon.kernels.codes import Codes
    from saebench_canon.metrics.geometry.own_rows import OwnRows
    from saebench_canon.metrics.shared.dictionary import Dictionary
    from saebench_canon.plugin.sae import CanonicalSAE

Number = float | Value | Undefined
CENTRED = "_centred"
DRAWN = 1024  # rows of the null that are fitted, at most


def _scores() -> Iterator[Score]:
    yield Score("distinct", help="Live latents without duplicates.", digits=0)
    yield Score(
        "duplicates", help="Live latents that are duplicates of another (cosine ≥ .95).", digits=0,
        headline=True,
    )  # fmt: skip
    for name, text in (
        ("own_sum_share", "Share of latents that are sums of the SAE's own other latents."),
        ("nearest_cosine", "Mean over latents of the largest cosine with another latent."),
    ):
        null = f"{name}_null"
        yield Score(name, better="lower", null=null, help=text, headline=True)
        yield Score(f"{name}{CENTRED}", better="lower", help=f"{name} without the mean row.")
        yield Score(null, help=f"{name} of random rows of the same mean and covariance.")


@metric(of="sae", version=1, cost=cost, scores=list(_scores()))
def geometry(
    sae: CanonicalSAE,
    codes: Codes | None = None,
    seed: int = 0,
    *,
    gate: float = 1.2,
    atoms: int = 4,
    least: float = 0.6,
    gain: float = 0.2,
) -> Measurement:
    """How the decoder rows of one SAE lie to one another (ours).

    Of duplicates, one latent stands for all. A latent is a sum of the SAE's own iff at most `atoms`
    of its other rows with weights ≥ 0 explain `least` of it and `gain` more than the first does. A
    fit whose squared weights sum to more than `gate` cancels, and explains nothing.
    """
    from saebench_canon.kernels.nulls import covariance_matched
    from saebench_canon.kernels.random_generators import generator
    from saebench_canon.metrics.geometry.own_rows import beside_own_rows
    from saebench_canon.metrics.shared.dictionary import dictionary_of

    if not gate > 0:
        raise CanonError(f"geometry: gate must be positive, got {gate}")
    rule = Rule(atoms, least, gain)
    check_rule("geometry", rule)
    marks = (NO_CODES,) if codes is None else ()
    dictionary = dictionary_of(sae, codes)
    if len(dictionary) == 0:
        dead = Undefined("no latent is live")
        return Measurement({score.name: dead for score in geometry.scores}, marks=marks)
    random = covariance_matched(dictionary.rows, generator(seed, "geometry"))
    views = {
        "": (dictionary, beside_own_rows(dictionary.rows, rule, gate)),
        "_null": (None, beside_own_rows(random, rule, gate, count=DRAWN)),
    }
    centred = dictionary.centred()
    if len(centred):
        views[CENTRED] = (centred, beside_own_rows(centred.rows, rule, gate))
    nothing = Undefined("no latent is more than the direction that rows share")
    scores: dict[str, Number] = {
        f"{name}{CENTRED}": nothing for name in ("own_sum_share", "nearest_cosine")
    }
    scores |= {
        "distinct": float(len(dictionary)), "duplicates": float(dictionary.duplicates),
        **{f"{name}{end}": value
           for end, (_, fits) in views.items() for name, value in _of_rows(fits, rule).items()},
    }  # fmt: skip
    columns = [_columns(fits, rows, end) for end, (rows, fits) in views.items() if rows is not None]
    return Measurement(scores, {"latents": _table(dictionary, columns)}, marks)


def _of_rows(fits: OwnRows, rule: Rule) -> dict[str, Number]:
    alone = len(fits.cosine) == 1 and not bool(fits.cosine.isfinite().any())
    cosine = Undefined("a single latent is live") if alone else float(fits.cosine.mean())
    return {
        "own_sum_share": fits.fit.share(rule),
        "nearest_cosine": cosine,
    }


def _columns(fits: OwnRows, rows: Dictionary, view: str) -> pd.DataFrame:
    """The nearest other latent of each representative, and what a sum of others explains."""
    import pandas as pd

    from saebench_canon.metrics.shared.fitted import fit_columns

    nearest = rows.latents[fits.nearest.clamp(min=0)]
    table = {
        "nearest": nearest.where(fits.nearest >= 0, -1).tolist(),
        "cosine": fits.cosine.tolist(),
        **fit_columns(fits.fit, fits.pursuit, rows.latents),
    }
    index = pd.Index(rows.latents.tolist(), name="latent")
    return pd.DataFrame({f"{name}{view}": column for name, column in table.items()}, index=index)


def _table(dictionary: Dictionary, columns: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One row for each live latent; a duplicate has its representative in `twin_of`, else −1."""
    import pandas as pd

    every, owners = dictionary.every_latent.tolist(), dictionary.owners.tolist()
    twins = [owner if owner != latent else -1 for latent, owner in zip(every, owners, strict=True)]
    table = pd.DataFrame({"twin_of": twins}, index=pd.Index(every, name="latent"))
    return pd.concat([table, *columns], axis=1).sort_index().reset_index()
