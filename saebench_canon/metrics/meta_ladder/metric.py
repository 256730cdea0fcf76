"""How the number of meta-latents per latent grows with the width of the SAE (section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.metrics.meta_ladder.cost import cost
from saebench_canon.metrics.meta_sae.settings import MetaTraining
from saebench_canon.metrics.shared.pairs import NO_CODES
from saebench_canon.plugin.metric import Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.metrics.meta_sae.fits import Keep
    from saebench_canon.plugin.sae import CanonicalSAE


@metric(
    of="group",
    version=1,
    cost=cost,
    scores=[
        Score(
            "explained_variance",
            null="explained_variance_null",
            help="Centred variance of all SAEs' rows that their common meta-SAE explains.",
        ),
        Score("explained_variance_null", help="The same of random rows of each SAE's covariance."),
        Score(
            "meta_l0_smallest",
            null="meta_l0_smallest_null",
            digits=2,
            help="Mean number of meta-latents active on a row of the smallest SAE.",
        ),
        Score("meta_l0_smallest_null", digits=2, help="The same of the random rows."),
        Score(
            "meta_l0_largest",
            null="meta_l0_largest_null",
            digits=2,
            help="Mean number of meta-latents active on a row of the largest SAE.",
        ),
        Score("meta_l0_largest_null", digits=2, help="The same of the random rows."),
        Score(
            "shared_share",
            null="shared_share_null",
            help="Share of live meta-latents that are active on rows of every SAE.",
        ),
        Score("shared_share_null", help="The same of the random rows."),
        Score(
            "own_share",
            null="own_share_null",
            help="Share of live meta-latents that are active on rows of one SAE alone.",
        ),
        Score("own_share_null", help="The same of the random rows."),
    ],
)
def meta_ladder(
    saes: tuple[CanonicalSAE, ...],
    seed: int,
    codes: tuple[Codes, ...] | None = None,
    keep: Keep | None = None,
    *,
    recipe: MetaTraining = MetaTraining(),
) -> Measurement:
    """How the number of meta-latents per latent grows with the width of the SAE.

    One meta-SAE is trained on the live decoder rows of all SAEs of the group, a ladder of widths
    (`over = "group:width"`), so that all rows decompose into the same meta-latents. `preset` to
    `lr` set its training as in `meta_sae`, for the rows of all SAEs together. SAEs are ordered by
    their number of live latents.
    """
    from saebench_canon.metrics.meta_ladder import parts
    from saebench_canon.metrics.meta_sae.fits import fit_all_rows
    from saebench_canon.metrics.meta_sae.live_counts import by_size
    from saebench_canon.metrics.shared.live_rows import live_rows

    all_codes = codes or (None,) * len(saes)
    rows = [live_rows(*member).rows for member in zip(saes, all_codes, strict=True)]
    order = sorted(range(len(saes)), key=lambda member: by_size(rows[member]))
    tables = [rows[member] for member in order]
    if any(len(table) == 0 for table in tables):
        dead = Undefined("an SAE of the group has no live latent")
        return Measurement({score.name: dead for score in meta_ladder.scores})
    training = recipe.on(sum(map(len, tables)))
    random = [parts.random_rows(table, seed, member) for member, table in enumerate(tables)]
    real, null = (
        parts.meta_latent_use(ladder, fit_all_rows(parts.joined(ladder), training, seed, keep))
        for ladder in (tables, random)
    )
    same_size = None
    if len(tables[0]) == len(tables[-1]):
        same_size = Undefined("all SAEs of the group have the same number of live latents")
    scores: dict[str, float | Value | Undefined] = {}
    for suffix, use in (("", real), ("_null", null)):
        scores |= {
            f"explained_variance{suffix}": use.explained_variance,
            f"meta_l0_smallest{suffix}": same_size or use.meta_l0[0],
            f"meta_l0_largest{suffix}": same_size or use.meta_l0[-1],
            f"shared_share{suffix}": use.shared_share,
            f"own_share{suffix}": use.own_share,
        }
    sizes = [saes[member].width for member in order]
    return Measurement(
        scores=scores,
        tables={"widths": parts.widths(order, sizes, tables, real, null)},
        marks=() if codes is not None else (NO_CODES,),
    )
