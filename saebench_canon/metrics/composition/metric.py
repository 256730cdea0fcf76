"""Whether a larger SAE's latents are sums of a smaller one's (Leask et al. 2025, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.kernels.sum_rule import Rule
from saebench_canon.metrics.composition.cost import cost
from saebench_canon.metrics.shared.pairs import SAEPair
from saebench_canon.metrics.shared.sums import check_rule, composed_scores
from saebench_canon.plugin.metric import Measurement, Score, Undefined, metric

if TYPE_CHECKING:
    pass


@metric(
    of="pair",
    version=1,
    cost=cost,
    roles=("sums",),
    scores=[
        *composed_scores(
            rows="live large latents that are sums of live small ones",
            atom="atom",
            headlines=("composed_share", "composed_excess"),
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
    ],
)
def composition(
    both: SAEPair,
    seed: int = 0,
    *,
    rule: Rule = Rule(),
) -> Measurement:
    """Whether a larger SAE's latents are sums of a smaller one's.

    Each live large decoder row is fitted by at most `atoms` live small rows with weights ≥ 0. It is
    a sum iff they explain at least the share `least` of it, and at least `gain` more than the best
    one alone. `least` is raised where more than the share `chance` of a null's rows would be sums.
    """
    from saebench_canon.metrics.composition import fits
    from saebench_canon.metrics.shared.live_rows import live_rows

    check_rule("composition", rule)
    below = live_rows(both.small, both.small_codes)
    above = live_rows(both.large, both.large_codes)
    if len(below) == 0 or len(above) == 0:
        reason = f"no latent of the {'smaller' if len(below) == 0 else 'larger'} SAE is live"
        return Measurement(
            {s.name: Undefined(reason) for s in composition.scores}, marks=both.marks
        )
    fitted = fits.fit(above.rows, below.rows, rule.atoms, seed)
    raised = rule.raised(null.explained for null in fitted.nulls)
    table = fits.sums(fitted.rows, above, below, raised)
    return Measurement(fits.scores(fitted, above.rows, raised), {"latents": table}, both.marks)
