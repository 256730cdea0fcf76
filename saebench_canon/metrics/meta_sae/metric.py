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
    from saebench_canon.metrics.meta_sae.scores import Memo
    from saebench_canon.plugin.sae import CanonicalSAE

EVALUATED = "a published meta-SAE is evaluated, none is trained"


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
    replace the preset's values. The preset's width is a quarter of the live rows. Each of
    `meta_seeds` runs holds out a share `holdout` of the rows; scores are means over the runs. With
    `composition`, held-out rows are tested for being sums of meta-latents. For these fits, rows
    with a cosine of `purge` or more to a held-out row are not trained on. A row is a sum if at
    most `atoms` meta-latents explain at least `least` of it, and `gain` more than one explains;
    `least` is raised where more than `chance` of a null's rows would be sums. With `meta`, the
    ref of a published meta-SAE, that meta-SAE is evaluated on all rows and none is trained.
    """
    from saebench_canon.metrics.meta_sae.fits import fit_all_rows
    from saebench_canon.metrics.meta_sae.scores import evaluated, study
    from saebench_canon.metrics.meta_sae.tables import baselines, decomposition
    from saebench_canon.metrics.shared.live_rows import live_rows

    check_rule("meta_sae", rule)
    runs.check()
    live = live_rows(sae, codes)
    m = len(live)
    if m == 0:
        dead = Undefined("no latent is live")
        return Measurement({score.name: dead for score in meta_sae.scores})
    marks = () if codes is not None else (NO_CODES,)
    if choice.meta is not None:
        from saebench_canon.metrics.meta_sae.published import published

        model = published(choice.meta, live.rows, choice.k)
        evaluation = evaluated(model, live.rows)
        untrained = Undefined(EVALUATED)
        scores = {score.name: evaluation.get(score.name, untrained) for score in meta_sae.scores}
        return Measurement(scores, decomposition(live, model), marks)
    training = choice.on(m)
    runs.check_on(m)
    result = study(live.rows, training, runs, rule, seed, memo)
    tables = decomposition(live, fit_all_rows(live.rows, training, seed, keep))
    tables["convergence"] = result.convergence
    return Measurement({**result.scores, **baselines(live.rows, training, seed)}, tables, marks)
