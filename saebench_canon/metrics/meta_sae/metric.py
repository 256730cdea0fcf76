"""How far the decoder rows of one SAE decompose into a few shared directions (section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from saebench_canon.errors import CanonError
from saebench_canon.metrics.meta_sae.cost import cost
from saebench_canon.metrics.meta_sae.presets import training_of
from saebench_canon.metrics.shared.sums import check_rule
from saebench_canon.plugin.metric import Mark, Measurement, Score, Undefined, metric

if TYPE_CHECKING:
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.metrics.meta_sae.fits import Keep
    from saebench_canon.metrics.meta_sae.runs import Memo
    from saebench_canon.plugin.sae import CanonicalSAE

NO_DATA = "no activations: every latent counts as live"
READ = "a published meta-SAE is evaluated, none is trained"


@metric(
    of="sae",
    version=2,
    cost=cost,
    roles=("meta_latents",),
    scores=[
        Score(
            "explained_variance",
            better="lower",
            null="null_covariance",
            help="Centred variance of the rows trained on that the meta-SAE explains.",
            headline=True,
        ),
        Score("explained_variance_uncentred", help="The same about 0 instead of the mean row."),
        Score("mse", digits=8, help="Squared error of unit rows trained on, per dimension."),
        Score(
            "above_null",
            better="lower",
            help="explained_variance − null_covariance.",
            headline=True,
        ),
        Score(
            "heldout_explained_variance",
            better="lower",
            null="heldout_null",
            help="Centred variance explained of rows kept out, by their largest k codes.",
            headline=True,
        ),
        Score("heldout_null", help="The same on the covariance-matched random rows."),
        Score("null_isotropic", help="Explained variance of random rows of uniform direction."),
        Score("null_covariance", help="Explained variance of random rows of the same covariance."),
        Score("meta_l0", digits=1, help="Mean number of meta-latents active on a row trained on."),
        Score("meta_dead_share", help="Share of meta-latents active on no row trained on."),
        Score(
            "composed_share",
            better="lower",
            null="composed_null",
            help="Share of rows kept out that are sums of meta-latents.",
        ),
        Score("composed_null", help="What chance makes of it: the highest of the three below."),
        Score(
            "composed_null_parent",
            help="The share with each row's best meta-latent kept and its rest redrawn.",
        ),
        Score("composed_null_covariance", help="The share of random rows of the same covariance."),
        Score("composed_null_clusters", help="The share of rows that each vary one parent."),
        Score(
            "composed_excess",
            better="lower",
            help="(composed_share − composed_null) / (1 − composed_null).",
            headline=True,
        ),
        Score("composed_least", help="Share of a sum that had to be explained; raised by chance."),
        Score(
            "purged_share",
            help="Share of the rows trained on that are near a row kept out, left out for these.",
        ),
        Score(
            "planted_recall",
            better="higher",
            help="Share of planted sums of a few shared directions that are found.",
        ),
        Score("pca_width", help="Variance explained by as many principal components as latents."),
        Score("pca_active", help="Variance explained by k principal components."),
        Score("kmeans_width", help="Variance explained by as many clusters as latents."),
        Score("kmeans_active", help="Variance explained by up to k of those clusters' centres."),
    ],
)
def meta_sae(
    sae: CanonicalSAE,
    seed: int,
    codes: Codes | None = None,
    memo: Memo | None = None,
    keep: Keep | None = None,
    *,
    preset: Literal["quarter", "paper", "artifact"] = "quarter",
    width: int | None = None,
    k: int | None = None,
    steps: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    holdout: float = 0.2,
    meta_seeds: int = 1,
    composition: bool = True,
    purge: float = 0.7,
    atoms: int = 4,
    least: float = 0.6,
    gain: float = 0.2,
    chance: float = 0.05,
    meta: CanonicalSAE | None = None,
) -> Measurement:
    """How far the decoder rows decompose into a few shared directions.

    A BatchTopK SAE is trained on the live decoder rows; `width`, `k`, `steps`, `batch` and `lr`
    are the preset's unless given. The width of the preset is a quarter of the live rows. Each of
    `meta_seeds` runs keeps its own share `holdout` of the rows out; scores are their means. With
    `composition`, rows kept out are tested for being sums of meta-latents: for these fits rows
    with a cosine of `purge` or more to a row kept out are not trained on, and a row is a sum iff
    at most `atoms` meta-latents explain at least `least` of it, and by `gain` more than one;
    `least` is raised where more than `chance` of a null's rows would be sums. With `meta`, the
    name of a published meta-SAE, that one is evaluated on all rows and none is trained.
    """
    from saebench_canon.kernels.composition import Rule
    from saebench_canon.metrics.meta_sae import runs
    from saebench_canon.metrics.meta_sae.fits import whole
    from saebench_canon.metrics.meta_sae.tables import baselines, decomposition
    from saebench_canon.metrics.shared.live_rows import live_rows

    rule = Rule(atoms, least, gain, chance)
    check_rule("meta_sae", rule)
    if not 0 <= holdout < 1:
        raise CanonError(f"meta_sae: holdout = {holdout} is not a share of the rows below 1")
    if meta_seeds < 1:
        raise CanonError(f"meta_sae: meta_seeds = {meta_seeds} is not 1 or more")
    if not -1 <= purge <= 1:
        raise CanonError(f"meta_sae: purge = {purge} is not a cosine from −1 to 1")
    live = live_rows(sae, codes)
    m = len(live)
    if m == 0:
        return Measurement({each.name: Undefined("no latent is live") for each in meta_sae.scores})
    marks = () if codes is not None else (Mark("note", NO_DATA),)
    if meta is not None:
        from saebench_canon.metrics.meta_sae.published import published

        model = published(meta, live.rows, k)
        read = runs.evaluated(model, live.rows)
        found = {each.name: read.get(each.name, Undefined(READ)) for each in meta_sae.scores}
        return Measurement(found, decomposition(live, model), marks)
    how = training_of(m, preset=preset, width=width, k=k, steps=steps, batch=batch, lr=lr)
    out = round(holdout * m)
    if out == 1 or m - out < 2:
        raise CanonError(
            f"meta_sae: holdout = {holdout} of {m} live decoder rows keeps {out} out and trains on "
            f"{m - out}, and it takes 2 of each",
            hint="Set another holdout, or 0 to keep none out.",
        )
    tried = rule if composition else None
    study = runs.study(live.rows, how, holdout, meta_seeds, seed, tried, purge, memo)
    tables = decomposition(live, whole(live.rows, how, seed, keep))
    tables["convergence"] = study.convergence
    scores = {**study.scores, **baselines(live.rows, how, seed)}
    return Measurement(scores, tables, marks)
