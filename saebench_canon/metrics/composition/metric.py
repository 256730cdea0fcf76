"""Whether a larger SAE's latents are sums of a smaller one's (Leask et al. 2025, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.kernels.sum_rule import Rule
from saebench_canon.metrics.composition.cost import cost
from saebench_canon.metrics.composition.settings import Limits
from saebench_canon.metrics.shared.pairs import SAEPair
from saebench_canon.metrics.shared.sums import check_rule, composed_scores
from saebench_canon.plugin.metric import Measurement, Score, Undefined, metric

if TYPE_CHECKING:
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.metrics.shared.sums import Number
    from saebench_canon.plugin.sae import CanonicalSAE

SHARES = ("composed_share", "merged_share")  # that are measured of centred rows, too
CENTRED = "_centred"
ONE_DIRECTION = "no latent is more than the direction that rows share"


@metric(
    of="pair",
    version=2,
    cost=cost,
    roles=("sums",),
    scores=[
        *composed_scores(
            rows="large latents that are sums of small ones, each counted by the share of peers "
            "that find it",
            atom="small latent",
            headlines=("composed_share",),
        ),
        Score(
            "merged_share",
            better="lower",
            null="merged_null",
            help="Share of small latents that are sums of large ones.",
            headline=True,
        ),
        Score(
            "merged_null",
            help="The same of rows that keep their part along the best large latent only.",
        ),
        Score(
            "planted_recall",
            better="higher",
            help="Share of planted noisy sums of two or three small rows that are found.",
            headline=True,
        ),
        Score(
            "explained_variance",
            better="lower",
            null="null_covariance",
            help="Share of the large rows' variance that up to 4 small rows explain.",
        ),
        Score("null_covariance", help="The same of random rows of the same covariance."),
        Score("composed_share_centred", help="composed_share without the common direction."),
        Score("merged_share_centred", help="merged_share without the common direction."),
    ],
)
def composition(
    both: SAEPair,
    peers: tuple[CanonicalSAE, ...] = (),
    peers_codes: tuple[Codes, ...] | None = None,
    seed: int = 0,
    *,
    limits: Limits = Limits(),
    rule: Rule = Rule(),
) -> Measurement:
    """Whether a larger SAE's latents are sums of a smaller one's.

    Of duplicates, one latent stands for all. A large latent is a sum iff at most `atoms` small rows
    with weights ≥ 0 explain `least` of it, `gain` more than the best one alone, and about as much
    as its twins in peers. `least` is raised where more than `chance` of a null's rows would be
    sums. A fit whose squared weights sum to more than `gate` cancels and is no sum. Each large
    latent counts by the share of the peers that find it, at cosine `threshold` or more; without
    peers all count alike. Small latents are sums of large ones by `least` as it is, without peers.
    """
    from saebench_canon.metrics.composition.view import View, scores, sums_of, table
    from saebench_canon.metrics.shared.dictionary import dictionary_of

    limits.check()
    check_rule("composition", rule)
    codes = peers_codes or (None,) * len(peers)
    view = View(
        dictionary_of(both.small, both.small_codes),
        dictionary_of(both.large, both.large_codes),
        tuple(dictionary_of(peer, of_peer) for peer, of_peer in zip(peers, codes, strict=True)),
    )
    if view.silent:
        nothing = Undefined(f"no latent of the {view.silent} SAE is live")
        return Measurement({s.name: nothing for s in composition.scores}, marks=both.marks)
    sums = sums_of(view, rule, limits, seed)
    centred = view.centred()
    apart: dict[str, Number] = dict.fromkeys(SHARES, Undefined(ONE_DIRECTION))
    if not centred.silent:
        apart = scores(centred, sums_of(centred, rule, limits, seed), rule)
    alone = {f"{name}{CENTRED}": apart[name] for name in SHARES}
    return Measurement(
        {**scores(view, sums, rule), **alone}, {"latents": table(view, sums)}, both.marks
    )
