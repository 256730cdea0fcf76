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
    training: MetaTraining = MetaTraining(),
) -> Measurement:
    """How the number of meta-latents per latent grows with the width of the SAE.

    One meta-SAE is trained on the live decoder rows of all SAEs of the group, a ladder of widths
    (`over = "group:width"`), so that their rows are written in the same meta-latents; `preset` to
    `lr` say how, as in `meta_sae`, for the sum of their rows. An SAE is as large as it has live
    latents.
    """
    from saebench_canon.metrics.meta_ladder import parts
    from saebench_canon.metrics.meta_sae.fits import whole
    from saebench_canon.metrics.meta_sae.sizes import by_size
    from saebench_canon.metrics.shared.live_rows import live_rows

    without = (None,) * len(saes)
    given = [live_rows(sae, own).rows for sae, own in zip(saes, codes or without, strict=True)]
    order = sorted(range(len(saes)), key=lambda at: by_size(given[at]))
    tables = [given[at] for at in order]
    if any(len(table) == 0 for table in tables):
        none = Undefined("an SAE of the group has no live latent")
        return Measurement({score.name: none for score in meta_ladder.scores})
    how = training.on(sum(map(len, tables)))
    random = [parts.random(table, seed, member) for member, table in enumerate(tables)]
    found, null = (
        parts.look(each, whole(parts.joined(each), how, seed, keep)) for each in (tables, random)
    )
    alike = None
    if len(tables[0]) == len(tables[-1]):
        alike = Undefined("every SAE of the group has as many live latents as the others")
    scores: dict[str, float | Value | Undefined] = {}
    for name, each in (("", found), ("_null", null)):
        scores |= {
            f"explained_variance{name}": each.explained,
            f"meta_l0_smallest{name}": alike or each.meta_l0[0],
            f"meta_l0_largest{name}": alike or each.meta_l0[-1],
            f"shared_share{name}": each.shared,
            f"own_share{name}": each.own,
        }
    sizes = [saes[at].width for at in order]
    return Measurement(
        scores=scores,
        tables={"widths": parts.widths(order, sizes, tables, found, null)},
        marks=() if codes is not None else (NO_CODES,),
    )
