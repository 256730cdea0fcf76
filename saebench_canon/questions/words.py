"""Which words answer complete? and atomic?, and what keeps an answer open?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Word = Literal["no", "none-found", "undecided", "not-measurable", "not-judged"]
Reason = Literal[
    "nothing is found again",  # not measurable: no larger seed finds a latent of another
    "larger is worse",  # not measurable: it leaves more error than the smaller
    "few dimensions",  # not measurable: sums span even random directions
    "no witness",  # not judged
    "few latents",  # not judged: the witness finds hardly any
    "missing not above floor",  # not "no"
    "gain not above floor",  # not "no"
    "seldom found again",  # not "none-found": the larger's latents, by another seed
    "may be missing",  # not "none-found"
    "may gain",  # not "none-found"
    "larger is better",  # not "none-found": it leaves less error than the smaller
    "sums of the other",  # "no"
    "sums of shared directions",  # "no", as a meta-SAE finds them
    "as in another seed",  # not "no": as many are sums of another large seed's latents
    "may be sums",  # not "none-found"
    "planted sums unseen",  # not "none-found"
    "meta-SAE may find sums",  # not "none-found": more than the limit, but not clearly
    "no floor",  # undecided: fewer than three seeds, so that nothing says what a seed's are
    "no smaller SAE",
    "common direction",  # undecided: raw rows and centred ones say the opposite
]


@dataclass(frozen=True)
class Decision:
    """An answer's word, and the reasons that it is no other."""

    word: Word
    reasons: tuple[Reason, ...] = ()


def without_common_direction(raw: Decision, centred: Decision) -> Decision:
    """The answer of centred rows, unless raw ones say the opposite."""
    if {raw.word, centred.word} == {"no", "none-found"}:
        return Decision("undecided", ("common direction",))
    return centred


def agreed(decisions: Sequence[Decision]) -> Decision:
    """The decision of rows as they are, or of these and centred rows."""
    if len(decisions) == 1:
        return decisions[0]
    raw, centred = decisions
    return without_common_direction(raw, centred)


def unmet(conditions: Mapping[Reason, bool]) -> tuple[Reason, ...]:
    """The reasons whose conditions do not hold."""
    return tuple(reason for reason, met in conditions.items() if not met)
