"""Are latents sums of another SAE's? The word that the numbers give (rules C and D)."""

from __future__ import annotations

from dataclasses import dataclass

from saebench_canon.questions.intervals import Interval, met
from saebench_canon.questions.merging import Hub
from saebench_canon.questions.weighted import Weighted
from saebench_canon.questions.words import Decision, Reason, Word, is_near, unmet


@dataclass(frozen=True)
class AtomicLimits:
    """The limits of atomic?."""

    sums: float = 0.10
    recall: float = 0.7
    hub: float = 0.5  # share of the sums that one latent is part of, from which it is named


LIMITS = AtomicLimits()
FEW = 8  # sums, of which a part in common says nothing yet


def atomicity(
    sums: Weighted | None,
    *,
    recall: float,
    meta_lo: float | None = None,
    limits: AtomicLimits = LIMITS,
) -> Decision:
    """Rule C: whether the larger SAEs' latents are sums of the smaller's, beyond another seed's.

    `recall` is the share of planted sums that are seen; `meta_lo` the lower end of a meta-SAE's
    composed_excess, which alone can say "no".
    """
    meta = meta_lo is not None and meta_lo > limits.sums
    alone = (
        Decision("not-measurable", ("nothing is found again",))
        if sums is None
        else _of_sums(sums.above, sums.share, recall, limits)
    )
    if not meta:
        return alone
    others = alone.reasons if alone.word == "no" else ()
    return Decision("no", (*others, "sums of shared directions"))


def is_hub(hub: Hub, *, limits: AtomicLimits = LIMITS) -> bool:
    """Whether one latent is part of so large a share of enough sums that it is named."""
    return hub.share > limits.hub and hub.sums >= FEW


def _of_sums(above: Interval, share: Interval, recall: float, limits: AtomicLimits) -> Decision:
    far_no = above.above(limits.sums)
    far_none = min(share.below(limits.sums), met(recall >= limits.recall))

    def decision(word: Word, *reasons: Reason) -> Decision:
        return Decision(word, reasons, near=is_near(word, far_no, far_none))

    if above.lo > limits.sums:
        return decision("no", "sums of the other")
    if share.lo > limits.sums:
        return decision("undecided", "as in another seed")
    failed = unmet(
        {
            "may be sums": share.hi < limits.sums,
            "planted sums unseen": recall >= limits.recall,
        }
    )
    return decision("undecided", *failed) if failed else decision("none-found")
