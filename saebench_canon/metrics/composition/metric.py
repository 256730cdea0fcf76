"""Whether a larger SAE's latents are sums of a smaller one's (Leask et al. 2025, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.kernels.sum_rule import Rule
from saebench_canon.metrics.composition.cost import cost
from saebench_canon.metrics.shared.sums import check_rule, composed_scores
from saebench_canon.plugin.metric import Mark, Measurement, Score, Undefined, metric

if TYPE_CHECKING:
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.plugin.sae import CanonicalSAE


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
    small: CanonicalSAE,
    large: CanonicalSAE,
    small_codes: Codes | None = None,
    large_codes: Codes | None = None,
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
    below, above = live_rows(small, small_codes), live_rows(large, large_codes)
    marks: tuple[Mark, ...] = ()
    if small_codes is None or large_codes is None:
        marks = (Mark("note", "no activations: every latent counts as live"),)
    if len(below) == 0 or len(above) == 0:
        reason = f"no latent of the {'smaller' if len(below) == 0 else 'larger'} SAE is live"
        return Measurement({s.name: Undefined(reason) for s in composition.scores}, marks=marks)
    fitted = fits.fit(above.rows, below.rows, rule.atoms, seed)
    raised = rule.raised(null.explained for null in fitted.nulls)
    table = fits.sums(fitted.rows, above, below, raised)
    return Measurement(fits.scores(fitted, above.rows, raised), {"latents": table}, marks)
