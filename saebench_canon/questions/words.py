"""Which words answer complete? and atomic?, and what keeps an answer open?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


NEAR = 1.0  # standard errors


@dataclass(frozen=True)
class Decision:
    """An answer's word, the reasons that it is no other, and whether it is near another.

    It is near where a bound that decides lies within a standard error of its margin: other seeds
    may then say otherwise.
    """

    word: Word
    reasons: tuple[Reason, ...] = ()
    near: bool = field(default=False, compare=False)


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


def is_near(word: Word, no: float, none_found: float) -> bool:
    """Whether another word is near, given how far the conditions of two words are met.

    Each is in standard errors, of the condition that is met least: below 0 it is not met.
    """
    match word:
        case "no":
            return no < NEAR
        case "none-found":
            return none_found < NEAR
    return word == "undecided" and max(no, none_found) > -NEAR


def with_nearness(sentence: str, near: bool) -> str:
    """A sentence that says where its answer is near its margin."""
    return f"{sentence.removesuffix('.')}; near its margin." if near else sentence


def unmet(conditions: Mapping[Reason, bool]) -> tuple[Reason, ...]:
    """The reasons whose conditions do not hold."""
    return tuple(reason for reason, met in conditions.items() if not met)
