"""How the sentences of complete? put their numbers into words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saebench_canon.plugin.row import Axis
from saebench_canon.questions.completeness import CompleteLimits
from saebench_canon.questions.gains import Gain
from saebench_canon.questions.intervals import Interval, mde, seeds_to_decide
from saebench_canon.questions.numbers_in_sentences import ends, short
from saebench_canon.questions.weighted import Weighted
from saebench_canon.questions.witnessed import Witnessed
from saebench_canon.questions.words import Decision

OTHER_SEEDS = "of what other seeds of the larger find"


@dataclass(frozen=True)
class Seeds:
    """What rule A found, from three seeds of the larger SAE."""

    missing: Weighted | None
    not_found: Weighted | None
    gain: Gain
    better: float
    low: float


@dataclass(frozen=True)
class Pair:
    """What rule B found of two SAEs, by each witness."""

    small: str
    large: str
    heard: Sequence[tuple[str, Witnessed, Interval]]


def by_seeds(
    decision: Decision, found: Seeds, size: Axis, smaller: int, limits: CompleteLimits
) -> str:
    """The sentence of rule A; of one smaller SAE it says so."""
    whose = "the smaller" if smaller > 1 else "this smaller SAE"
    if decision.word == "not-measurable":
        return f"not measurable here: {_why_not(decision, found, limits)}."
    share = _missing(found, whose)
    match decision.word:
        case "no":
            limit = f"limits {short(limits.missing)} and {short(limits.worth)}"
            return f"Not complete: {share} ({limit})."
        case "none-found":
            return (
                f"No incompleteness found up to width {size}: {share}; "
                f"the larger leaves {_error(found.better)} (limit {short(limits.better)})."
            )
    return f"undecided: {share}; {'; '.join(_open(decision, found, limits))}."


def lacks(word: str, share: float | None) -> str:
    """What a grid says of the smaller SAE."""
    if word not in ("no", "undecided") or share is None or math.isnan(share):
        return "none missing found" if word == "none-found" else ""
    return f"{word}: lacks {short(share)}"


def _missing(found: Seeds, whose: str) -> str:
    missing, not_found, gain = found.missing, found.not_found, found.gain
    assert missing is not None
    assert not_found is not None
    text = (
        f"{OTHER_SEEDS}, {_with(missing.share)} is missing in {whose} "
        f"({short(not_found.share.value)} not found), {short(missing.floor)} in another seed of "
        f"its own size (above it {_ends(missing.above)})"
    )
    if math.isnan(gain.gain):
        return text
    floor = f"{short(gain.floor)} between seeds, above it {_ends(gain.above)}"
    return f"{text}; adding it {_removes(gain.gain)} of the error ({floor})"


def _why_not(decision: Decision, found: Seeds, limits: CompleteLimits) -> str:
    match decision.reasons[0]:
        case "nothing is found again":
            return "no latent of the larger SAE is found by another seed"
        case "larger is worse":
            return (
                f"the larger SAE leaves {_error(found.better)} than the smaller "
                f"(limit {short(limits.worse)}), each at its best scale"
            )
    return (
        f"sums of the smaller's latents come as near as {short(found.low)} to random directions "
        f"(limit {short(limits.sums)}): d is too small"
    )


def _open(decision: Decision, found: Seeds, limits: CompleteLimits) -> Iterator[str]:
    """What keeps the question open, and what would decide it."""
    missing = found.missing
    assert missing is not None
    reasons = decision.reasons
    if "common direction" in reasons:
        yield "the answer turns on the direction that the rows share"
        return
    if "missing not above floor" not in reasons:
        if math.isnan(found.gain.gain):
            yield "what adding it is worth was not measured"
        else:
            yield f"the gain is not told from its floor (limit {short(limits.worth)})"
        return
    if "may be missing" in reasons:
        yield f"not told from {short(limits.missing)}" + _seeds(missing, limits.missing)
    elif "may gain" in reasons:
        yield f"the gain is not told from {short(limits.worthless)}"
    if "seldom found again" in reasons:
        again = short(missing.found_again_least)
        limit = f"limit {short(limits.reproducible)}"
        yield f"{again} of the larger's latents are found by another seed ({limit})"
    if "larger is better" in reasons:
        yield f"yet the larger leaves {_error(found.better)} (limit {short(limits.better)})"


def _seeds(missing: Weighted, limit: float) -> str:
    """What would be seen with these seeds, and how many would decide."""
    if not missing.above.components:
        return ""
    seen = f" (at these seeds {short(mde(missing.above.components))} above the floor would be seen"
    seeds = seeds_to_decide(missing.share, missing.above, limit)
    return f"{seen}; about {seeds} seeds would decide)" if seeds else f"{seen})"


def by_witness(word: str, judged: Sequence[tuple[Decision, Pair]], limits: CompleteLimits) -> str:
    """The sentence of rule B, of each pair of SAEs."""
    if all(not pair.heard for _, pair in judged):
        return (
            "not judged: one SAE of the larger size, and no wider one: another seed of the larger "
            "or a wider SAE would tell."
        )
    texts = []
    for decision, pair in judged:
        if decision.reasons == ("few latents",):
            texts.append(
                f"{pair.heard[0][0]} finds fewer than {limits.latents:g} latents of {pair.large} "
                f"or {pair.small}"
            )
            continue
        texts.append(_of_pair(pair))
    joined = "; ".join(texts)
    limit = f"limits {short(limits.missing)} and {short(limits.worth_alone)}"
    match word:
        case "no":
            return f"Not complete, of these SAEs: {joined} ({limit})."
        case "not-judged":
            return f"not judged: {joined}."
    return f"undecided: {joined} ({limit}); three seeds of the larger would say more."


def _of_pair(pair: Pair) -> str:
    """What the first witness says of a pair, and how many others there are."""
    (witness, seen, gain), *others = pair.heard
    worth = (
        "what adding them is worth was not measured"
        if math.isnan(gain.value)
        else f"adding them {_removes(gain.value)} more of the error {_ends(gain)}"
    )
    more = f" ({len(others)} more witnesses)" if others else ""
    return (
        f"of {seen.latents} latents of {pair.large} that {witness} finds too, "
        f"{short(seen.missing)} are missing in {pair.small} ({short(seen.not_found)} not "
        f"found), the other way round {short(seen.missing_back)} (difference "
        f"{_ends(seen.above)}); {worth}{more}"
    )


def _with(interval: Interval) -> str:
    """A share with its interval."""
    return f"{short(interval.value)} {ends(interval.lo, interval.hi, share=True)}"


def _ends(interval: Interval) -> str:
    return ends(interval.lo, interval.hi)


def _removes(gain: float) -> str:
    return f"{'adds' if gain < 0 else 'removes'} {short(abs(gain))}"


def _error(better: float) -> str:
    return f"{short(abs(better))} {'more' if better < 0 else 'less'} error"
