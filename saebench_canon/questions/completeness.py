"""Is the smaller SAE complete? The word that its numbers give (rules A and B)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from saebench_canon.questions.gains import Gain
from saebench_canon.questions.intervals import Interval, met
from saebench_canon.questions.relations import RESIDUAL
from saebench_canon.questions.weighted import Weighted
from saebench_canon.questions.witnessed import Witnessed
from saebench_canon.questions.words import Decision, Reason, Word, is_near, unmet


@dataclass(frozen=True)
class CompleteLimits:
    """The limits of complete?. With a single seed a width, the gain must be above `worth_alone`."""

    missing: float = 0.05
    worth: float = 0.01
    worth_alone: float = 0.03
    latents: float = 20  # that a witness must find of either SAE
    reproducible: float = 0.5
    worthless: float = 0.02
    better: float = 0.05
    worse: float = 0.05
    sums: float = RESIDUAL


LIMITS = CompleteLimits()


def completeness(
    missing: Weighted | None,
    gain: Gain,
    *,
    better: float,
    span_low: float,
    limits: CompleteLimits = LIMITS,
) -> Decision:
    """Rule A: whether the smaller SAEs lack what seeds of the larger find.

    `better` is how much less error the larger leaves, as a share of the smaller's; `span_low` the
    5th percentile of what sums of the smaller's latents leave over of random rows.
    """
    if missing is None:
        return Decision("not-measurable", ("nothing is found again",))
    if better < -limits.worse:
        return Decision("not-measurable", ("larger is worse",))
    if span_low <= limits.sums:
        return Decision("not-measurable", ("few dimensions",))
    no = unmet(
        {
            "missing not above floor": missing.above.lo > limits.missing,
            "gain not above floor": gain.above.lo > limits.worth,
        }
    )
    none_found = unmet(
        {
            "seldom found again": missing.found_again_least >= limits.reproducible,
            "may be missing": missing.share.hi < limits.missing,
            "may gain": gain.above.hi < limits.worthless,
            "larger is better": better < limits.better,
        }
    )
    far_no = min(missing.above.above(limits.missing), gain.above.above(limits.worth))
    far_none = min(
        missing.share.below(limits.missing), gain.above.below(limits.worthless),
        met(missing.found_again_least >= limits.reproducible), met(better < limits.better),
    )  # fmt: skip

    def decision(word: Word, *reasons: Reason) -> Decision:
        return Decision(word, reasons, near=is_near(word, far_no, far_none))

    if not no:
        return decision("no")
    return decision("undecided", *no, *none_found) if none_found else decision("none-found")


def completeness_alone(
    witnesses: Sequence[tuple[Witnessed, Interval]], *, limits: CompleteLimits = LIMITS
) -> Decision:
    """Rule B: whether this smaller SAE lacks what this larger one finds, as all witnesses say.

    Each witness comes with the gain: of the larger's latents added to the smaller, less the
    smaller's added to the larger. One that finds too few latents of either does not count.
    """
    if not witnesses:
        return Decision("not-judged", ("no witness",))
    heard = [
        (seen, gain)
        for seen, gain in witnesses
        if min(seen.latents, seen.latents_back) >= limits.latents
    ]
    if not heard:
        return Decision("not-judged", ("few latents",))
    failed = unmet(
        {
            "missing not above floor": all(seen.above.lo > limits.missing for seen, _ in heard),
            "gain not above floor": all(gain.lo > limits.worth_alone for _, gain in heard),
        }
    )
    far = min(
        distance
        for seen, gain in heard
        for distance in (seen.above.above(limits.missing), gain.above(limits.worth_alone))
    )
    word: Word = "undecided" if failed else "no"
    return Decision(word, failed, near=is_near(word, far, -math.inf))
