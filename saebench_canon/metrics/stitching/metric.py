"""What a larger SAE has that a smaller one lacks (Leask et al. 2025, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError, nearest
from saebench_canon.metrics.stitching.cost import cost
from saebench_canon.plugin.metric import Mark, Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.plugin.acts import Acts
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
ORDERINGS = ("random", "max_cos", "greedy")


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
            headline=True,
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
    small: CanonicalSAE,
    large: CanonicalSAE,
    small_codes: Codes | None = None,
    large_codes: Codes | None = None,
    acts: Acts | None = None,
    peers: tuple[CanonicalSAE, ...] = (),
    peers_codes: tuple[Codes, ...] | None = None,
    seed: int = 0,
    *,
    threshold: float = 0.7,
    span_atoms: int = 4,
    span_least: float = 0.25,
    orders: int = 3,
    orderings: tuple[str, ...] = ("random", "max_cos"),
) -> Measurement:
    """What a larger SAE has that a smaller one lacks.

    `threshold` is θ. A large latent is novel iff its largest cosine with a live small latent is
    below θ, and reproducible iff its largest cosine with every peer is at least θ. `span_atoms` is
    the number of small rows that a large row may be a sum of. A novel latent counts as unexplained
    iff they leave more than the share `span_least` of its row. `orderings` are the orders in which
    the path from the small SAE to the large one is computed, `random` with `orders` repeats.
    """
    import pandas as pd

    _check(threshold, span_atoms, orders, orderings)
    from saebench_canon.metrics.stitching import on_rows as parts

    pair = parts.pair_of(small, large, small_codes, large_codes)
    if len(pair.rows0) == 0 or len(pair.rows1) == 0:
        reason = f"no latent of the {'smaller' if len(pair.rows0) == 0 else 'larger'} SAE is live"
        names = (*NEEDS_DATA, *NEEDS_ROWS, *NEEDS_PEERS)
        return Measurement({name: Undefined(reason) for name in names})
    compared = parts.compare(pair, threshold, span_atoms)
    reproducible = parts.reproducible(pair, peers, peers_codes, threshold)
    unexplained = compared.novel & (compared.residual > span_least)
    null = parts.null_of(pair, span_atoms, seed)
    scores: dict[str, Number] = {
        **compared.scores,
        **parts.stability(reproducible, unexplained),
        **parts.null_scores(null, threshold),
    }
    columns = {**compared.columns(pair), "reproducible": reproducible}
    tables: dict[str, pd.DataFrame] = {"components": parts.components(compared.graph)}
    marks: tuple[Mark, ...] = ()
    if small_codes is None or large_codes is None or acts is None:
        scores |= {name: Undefined("needs activations") for name in NEEDS_DATA}
        scores.setdefault("stable_gain", Undefined("needs activations"))
        marks = (Mark("note", "no activations: every latent counts as live"),)
    else:
        from saebench_canon.metrics.stitching import on_codes as data

        coded = data.CodedPair(pair, small_codes, large_codes, acts)
        added = data.add_latents(coded, compared)
        scores |= added.scores
        scores |= data.gains(coded, unexplained, reproducible, added.factor)
        scores |= data.controls(coded, compared, null, threshold, span_least, seed)
        columns |= added.columns
        tables |= data.threshold_study(compared, added, threshold, seed)
        tables["path"], omitted = data.follow(coded, compared, orders, orderings, seed)
        marks = tuple(Mark("note", reason) for reason in omitted)
    tables["latents"] = pd.DataFrame(
        {name: None if column is None else column.cpu().numpy() for name, column in columns.items()}
    )
    return Measurement(scores=scores, tables=tables, marks=marks)


def _check(threshold: float, span_atoms: int, orders: int, orderings: tuple[str, ...]) -> None:
    if not -1 <= threshold <= 1:
        raise CanonError(f"stitching: threshold must be a cosine, −1 to 1, got {threshold}")
    if span_atoms < 1:
        raise CanonError(f"stitching: span_atoms must be 1 or more, got {span_atoms}")
    if orders < 0:
        raise CanonError(f"stitching: orders must be 0 or more, got {orders}")
    for name in orderings:
        if name not in ORDERINGS:
            hint = nearest(name, ORDERINGS)
            raise CanonError(f"stitching: unknown ordering '{name}'", hint=hint)
