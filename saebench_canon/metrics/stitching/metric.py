"""What a larger SAE has that a smaller one lacks (Leask et al. 2025, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.metrics.shared.pairs import NO_CODES, SAEPair
from saebench_canon.metrics.stitching.cost import cost
from saebench_canon.metrics.stitching.settings import Novelty, Paths
from saebench_canon.plugin.metric import Mark, Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.plugin.activations import Acts
    from saebench_canon.plugin.sae import CanonicalSAE

Number = float | Value | Undefined

NEEDS_DATA = (
    "small_mse", "large_mse", "small_mse_rescaled", "large_mse_rescaled", "novel_gain",
    "helpful_share", "helpful_share_eq5", "auc", "auc_eq5", "best_threshold", "residual_gain",
    "novel_gain_null", "helpful_share_null", "residual_gain_null", "novel_gain_permuted",
)  # fmt: skip
NEEDS_ROWS = (
    "novel_share", "orphan_share", "span_residual", "novel_share_null", "span_residual_null",
    "span_residual_null_low",
)  # fmt: skip
NEEDS_PEERS = ("reproducible_share", "stable_novel_share", "stable_gain")


@metric(
    of="pair",
    version=2,
    cost=cost,
    roles=("path", "additions"),
    scores=[
        Score("small_mse", better="lower", help="MSE of the smaller SAE."),
        Score("large_mse", better="lower", help="MSE of the larger SAE."),
        Score(
            "small_mse_rescaled",
            better="lower",
            help="MSE of the smaller SAE when all its codes are multiplied by their best factor.",
        ),
        Score("large_mse_rescaled", better="lower", help="The same of the larger SAE."),
        Score(
            "stable_novel_share",
            better="lower",
            help="Share of reproducible latents that are novel and not sums of small ones.",
            headline=True,
        ),
        Score(
            "stable_gain",
            better="lower",
            help="Relative drop of the smaller SAE's MSE when only those are added at their best "
            "scales, on documents that the scales were not fitted on.",
            headline=True,
        ),
        Score(
            "novel_share",
            better="lower",
            null="novel_share_null",
            help="Share of live large latents whose best cosine with a small one is below θ.",
            headline=True,
        ),
        Score(
            "novel_gain",
            better="lower",
            null="novel_gain_null",
            help="Relative drop of the smaller SAE's MSE when all novel latents are added.",
        ),
        Score(
            "helpful_share",
            better="lower",
            null="helpful_share_null",
            help="Share of live large latents that lower the MSE when added alone, bias fixed.",
        ),
        Score("helpful_share_eq5", better="lower", help="The same with the bias of eq. 5."),
        Score("auc", help="How well a low best cosine predicts that a latent helps, bias fixed."),
        Score("auc_eq5", help="The same with the bias of eq. 5."),
        Score("best_threshold", help="The θ that predicts best by Youden's J, bias fixed."),
        Score(
            "orphan_share",
            help="Share of live small latents without a large one of cosine θ or more.",
        ),
        Score(
            "span_residual",
            better="lower",
            null="span_residual_null",
            help="Mean share of a large row that non-negative pursuit by 4 small rows leaves.",
        ),
        Score(
            "reproducible_share",
            better="higher",
            help="Share of live large latents that every peer also has, at cosine θ or more.",
        ),
        Score(
            "residual_gain",
            better="lower",
            null="residual_gain_null",
            help="The same with all novel latents that are not sums of small ones.",
        ),
        Score("novel_share_null", help="novel_share of random rows of the same covariance."),
        Score("novel_gain_null", help="novel_gain of those rows, equally often active."),
        Score("helpful_share_null", help="helpful_share of those rows, equally often active."),
        Score("span_residual_null", help="span_residual of those rows."),
        Score("span_residual_null_low", help="span_residual of those rows, 5th percentile."),
        Score("residual_gain_null", help="residual_gain of those rows, equally often active."),
        Score(
            "novel_gain_permuted",
            help="novel_gain with each novel latent's codes on another novel latent's direction.",
        ),
    ],
)
def stitching(
    both: SAEPair,
    acts: Acts | None = None,
    peers: tuple[CanonicalSAE, ...] = (),
    peers_codes: tuple[Codes, ...] | None = None,
    seed: int = 0,
    *,
    novelty: Novelty = Novelty(),
    paths: Paths = Paths(),
) -> Measurement:
    """What a larger SAE has that a smaller one lacks.

    `threshold` is θ. A large latent is novel iff its largest cosine with a live small latent is
    below θ, and reproducible iff its largest cosine with every peer is at least θ. `span_atoms` is
    the number of small rows that a large row may be a sum of. A novel latent counts as unexplained
    iff they leave more than the share `span_least` of its row. `orderings` are the orders in which
    the path from the small SAE to the large one is computed, `random` with `orders` repeats.
    """
    import pandas as pd

    novelty.check()
    paths.check()
    threshold = novelty.threshold
    from saebench_canon.metrics.stitching import novelty as rows
    from saebench_canon.metrics.stitching.pairs import CodedPair, pair_of

    pair = pair_of(both.small, both.large, both.small_codes, both.large_codes)
    if len(pair.rows0) == 0 or len(pair.rows1) == 0:
        reason = f"no latent of the {'smaller' if len(pair.rows0) == 0 else 'larger'} SAE is live"
        names = (*NEEDS_DATA, *NEEDS_ROWS, *NEEDS_PEERS)
        return Measurement({name: Undefined(reason) for name in names})
    compared = rows.compare(pair, threshold, novelty.span_atoms)
    reproducible = rows.reproducible(pair, peers, peers_codes, threshold)
    unexplained = compared.novel & (compared.residual > novelty.span_least)
    null = rows.null_of(pair, novelty.span_atoms, seed)
    scores: dict[str, Number] = {
        **compared.scores,
        **rows.stability(reproducible, unexplained),
        **rows.null_scores(null, threshold),
    }
    columns = {**compared.columns(pair), "reproducible": reproducible}
    tables: dict[str, pd.DataFrame] = {"components": rows.components(compared.graph)}
    marks: tuple[Mark, ...] = ()
    if both.small_codes is None or both.large_codes is None or acts is None:
        scores |= {name: Undefined("needs activations") for name in NEEDS_DATA}
        scores.setdefault("stable_gain", Undefined("needs activations"))
        marks = (NO_CODES,)
    else:
        from saebench_canon.metrics.stitching import gains
        from saebench_canon.metrics.stitching.controls import controls
        from saebench_canon.metrics.stitching.path_points import follow
        from saebench_canon.metrics.stitching.thresholds import threshold_study

        coded = CodedPair(pair, both.small_codes, both.large_codes, acts)
        added = gains.add_latents(coded, compared)
        scores |= added.scores
        scores |= gains.gains_at_best_scales(coded, unexplained, reproducible, added.factor)
        scores |= controls(coded, compared, null, threshold, novelty.span_least, seed)
        columns |= added.columns
        tables |= threshold_study(compared, added, threshold, seed)
        tables["path"], omitted = follow(coded, compared, paths.orders, paths.orderings, seed)
        marks = tuple(Mark("note", reason) for reason in omitted)
    tables["latents"] = pd.DataFrame(
        {name: None if column is None else column.cpu().numpy() for name, column in columns.items()}
    )
    return Measurement(scores=scores, tables=tables, marks=marks)
