"""How far the decoder rows of one SAE decompose into a few shared directions (section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.kernels.sum_rule import Rule
from saebench_canon.metrics.meta_sae.cost import cost
from saebench_canon.metrics.meta_sae.settings import MetaChoice, Runs
from saebench_canon.metrics.shared.pairs import NO_CODES
from saebench_canon.metrics.shared.sums import check_rule, composed_scores
from saebench_canon.plugin.metric import Measurement, Score, Undefined, metric

if TYPE_CHECKING:
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.metrics.meta_sae.fits import Keep
    from saebench_canon.metrics.meta_sae.runs import Memo
    from saebench_canon.plugin.sae import CanonicalSAE

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
        *composed_scores(
            rows="rows kept out that are sums of meta-latents",
            atom="meta-latent",
            headlines=("composed_excess",),
        ),
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
    choice: MetaChoice = MetaChoice(),
    runs: Runs = Runs(),
    rule: Rule = Rule(),
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
    from saebench_canon.metrics.meta_sae.fits import whole
    from saebench_canon.metrics.meta_sae.runs import evaluated, study
    from saebench_canon.metrics.meta_sae.tables import baselines, decomposition
    from saebench_canon.metrics.shared.live_rows import live_rows

    check_rule("meta_sae", rule)
    runs.check()
    live = live_rows(sae, codes)
    m = len(live)
    if m == 0:
        return Measurement({each.name: Undefined("no latent is live") for each in meta_sae.scores})
    marks = () if codes is not None else (NO_CODES,)
    if choice.meta is not None:
        from saebench_canon.metrics.meta_sae.published import published

        model = published(choice.meta, live.rows, choice.k)
        read = evaluated(model, live.rows)
        scores = {each.name: read.get(each.name, Undefined(READ)) for each in meta_sae.scores}
        return Measurement(scores, decomposition(live, model), marks)
    how = choice.on(m)
    runs.check_on(m)
    studied = study(live.rows, how, runs, rule, seed, memo)
    tables = decomposition(live, whole(live.rows, how, seed, keep))
    tables["convergence"] = studied.convergence
    return Measurement({**studied.scores, **baselines(live.rows, how, seed)}, tables, marks)
