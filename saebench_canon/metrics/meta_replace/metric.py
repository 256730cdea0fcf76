"""Whether the meta-latents of a large SAE are the latents of a smaller one (section 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.metrics.meta_replace.cost import cost
from saebench_canon.metrics.meta_sae.settings import MetaChoice
from saebench_canon.metrics.shared.pairs import SAEPair
from saebench_canon.plugin.metric import Measurement, Score, metric

if TYPE_CHECKING:
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.metrics.meta_sae.fits import Keep
    from saebench_canon.plugin.sae import CanonicalSAE


@metric(
    of="pair",
    version=1,
    cost=cost,
    scores=[
        Score(
            "nearest_small",
            null="nearest_null",
            help="Best cosine of a meta-latent's direction with a live small row, mean.",
            headline=True,
        ),
        Score("nearest_null", help="The same of random rows of the directions' covariance."),
        Score(
            "explained_variance",
            help="Centred variance of the rows that the meta-SAE explains.",
            headline=True,
        ),
        Score(
            "replaced",
            null="replaced_null",
            help="The same with each meta-latent's direction replaced by its nearest small row.",
            headline=True,
        ),
        Score("replaced_null", help="The same by random rows of the small rows' covariance."),
        Score(
            "replaced_refit",
            null="replaced_refit_null",
            help="`replaced` with the encoder trained on for those directions.",
            headline=True,
        ),
        Score("replaced_refit_null", help="The same by those random rows."),
        Score(
            "replaced_random", help="`replaced` by uniform random directions, the encoder as it is."
        ),
        Score("mse", digits=8, help="MSE of the meta-SAE, over rows and dimensions."),
        Score("mse_replaced", digits=8, null="mse_replaced_random", help="MSE of `replaced`."),
        Score(
            "mse_replaced_refit",
            digits=8,
            null="mse_replaced_random",
            help="MSE of `replaced_refit`.",
        ),
        Score("mse_replaced_random", digits=8, help="MSE of `replaced_random`."),
        Score(
            "graph_overlap",
            null="graph_overlap_null",
            help="Share of the edges from large latents over meta-latents to small ones that are "
            "among as many of the largest cosines.",
            headline=True,
        ),
        Score("graph_overlap_null", help="The same with meta-latents assigned to small rows anew."),
    ],
)
def meta_replace(
    both: SAEPair,
    seed: int = 0,
    keep: Keep | None = None,
    peers: tuple[CanonicalSAE, ...] = (),
    peers_codes: tuple[Codes, ...] | None = None,
    *,
    choice: MetaChoice = MetaChoice(),
    refit_steps: int | None = None,
    draws: int = 4,
) -> Measurement:
    """Whether the meta-latents of a large SAE are the latents of a smaller one.

    The directions of the larger SAE's meta-SAE are replaced by their nearest live rows of the
    smaller SAE. The meta-SAE is trained on all live rows; with the same settings it is that of
    `meta_sae`'s decomposition. `preset` to `lr` set its training; `meta` names a published
    meta-SAE to use instead. The live rows of peers that have fewer live latents than the larger
    SAE count as rows of the smaller one. `refit_steps` is the number of steps of the encoder's
    training on the new directions, by default that of the meta-SAE's training; `draws` is the
    number of random replacements and assignments.
    """
    if draws < 1:
        raise CanonError(f"meta_replace: draws must be at least 1, got {draws}")
    if refit_steps is not None and refit_steps < 1:
        raise CanonError(f"meta_replace: refit_steps must be at least 1, got {refit_steps}")
    from saebench_canon.metrics.meta_replace import parts
    from saebench_canon.metrics.meta_sae.fits import fit_all_rows
    from saebench_canon.metrics.meta_sae.published import published
    from saebench_canon.metrics.shared.live_rows import live_rows

    names = [score.name for score in meta_replace.scores]
    rows = live_rows(both.large, both.large_codes)
    with_codes = list(zip(peers, peers_codes or (None,) * len(peers), strict=True))
    small_rows = parts.small_rows((both.small, both.small_codes), with_codes, fewer_than=len(rows))
    if len(rows) == 0:
        return Measurement(parts.undefined(names, "no latent of the larger SAE is live"))
    if choice.meta is None:
        training = choice.on(len(rows))
        model = fit_all_rows(rows.rows, training, seed, keep)
    else:
        width = choice.meta.width
        if choice.width not in (None, width):
            raise CanonError(
                f"meta_replace: width must be that of the meta-SAE, {width}, got {choice.width}"
            )
        training = replace(choice, width=width).on(len(rows))
        model = published(choice.meta, rows.rows, choice.k)
    refit = replace(training, steps=refit_steps or training.steps)
    comparison = parts.compare(model, rows, small_rows, refit, seed, draws)
    return Measurement(
        scores={**parts.undefined(names, comparison.reason), **comparison.scores},
        tables={"nearest": comparison.nearest, "within": comparison.within},
        marks=both.marks,
    )
