"""Complete? Whether a larger dictionary reproducibly finds what a smaller one lacks (ours)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from saebench_canon.plugin.question import NOT_JUDGED, Answer, Margin, Margins, Planned, Question
from saebench_canon.plugin.row import Axis
from saebench_canon.plugin.table_line import Block, Cell
from saebench_canon.questions import complete_sentences as say
from saebench_canon.questions.completeness import (
    CompleteLimits,
    completeness,
    completeness_alone,
)
from saebench_canon.questions.gains import Gain, gain_above_floor, gain_both_ways
from saebench_canon.questions.intervals import Interval
from saebench_canon.questions.judged import cell, line_of, notes_on, notes_on_kin, unfit_answer
from saebench_canon.questions.kinship import COMPARISON, INSERTION, Kin, kin_of, less_error
from saebench_canon.questions.weighted import FEWEST, missing, not_found
from saebench_canon.questions.witnessed import witnessed
from saebench_canon.questions.words import Decision, agreed, with_nearness

UNKNOWN = Interval(math.nan, -math.inf, math.inf)
DEFAULTS = CompleteLimits()


def _rule(block: Block, margins: Margins) -> Iterator[Answer]:
    """One answer for each step from a dictionary size to the next larger one."""
    kin = kin_of(block)
    if kin is None or len(kin.sizes) < 2:
        lost = "no smaller and larger SAE were compared"
        yield Answer(NOT_JUDGED, f"not judged: {lost}.")
        return
    for smaller, larger in pairwise(kin.sizes):
        yield _step(block, kin, smaller, larger, margins)


def _step(block: Block, kin: Kin, smaller: Axis, larger: Axis, margins: Margins) -> Answer:
    line = line_of(block, (smaller, larger), (*kin.sizes[smaller], *kin.sizes[larger]))
    withheld = unfit_answer(block, line)
    if withheld is not None:
        return withheld
    small, large = kin.of(smaller), kin.of(larger)
    limits = CompleteLimits(**{name: margins[name] for name in DEFAULTS.__dataclass_fields__})
    seeds = len(large) >= FEWEST
    pairs = [(of, inside) for of in large for inside in (*small, *large) if of != inside]
    if lost := kin.uncompared(pairs):
        return Answer.on(line, NOT_JUDGED, f"not judged: {lost}.")
    answer = (
        _by_seeds(kin, small, large, larger, limits)
        if seeds
        else _by_witness(kin, smaller, larger, limits)
    )
    twins = notes_on_kin(kin, (smaller, larger))
    return Answer(
        answer.answer, answer.sentence, size=larger, smaller=smaller, position=line.title,
        short=answer.short,
        numbers=answer.numbers, notes=(*notes_on(block, line), *twins, *answer.notes),
    )  # fmt: skip


def _by_seeds(
    kin: Kin, small: Sequence[str], large: Sequence[str], size: Axis, limits: CompleteLimits
) -> Answer:
    """Rule A: three starts or more of the larger SAE."""
    judged: list[tuple[Decision, say.Seeds]] = []
    for view in kin.views((*small, *large)):
        share = missing(view.family, small, large)
        gain = gain_above_floor(view.gains, small, large)
        if math.isnan(gain.above.value):  # not all of it was measured
            gain = Gain(math.nan, math.nan, UNKNOWN)
        better = less_error(kin, small, large)
        low = float(np.mean([view.low[of, inside] for of in large for inside in small]))
        decision = completeness(
            share, gain, better=0.0 if math.isnan(better) else better, span_low=low, limits=limits
        )
        judged.append(
            (decision, say.Seeds(share, not_found(view.family, small, large), gain, better, low))
        )
    decision = agreed([decision for decision, _ in judged])
    found = judged[-1][1]
    sentence = with_nearness(say.by_seeds(decision, found, size, len(small), limits), decision.near)
    numbers: dict[str, Cell] = {}
    if found.missing is not None and found.not_found is not None:
        numbers = {
            "missing_stable_share": cell(found.missing.share, found.missing.floor),
            "missing_stable_floor": cell(_point(found.missing.floor)),
            "missing_stable_above_floor": cell(found.missing.above),
            "not_found_stable_share": cell(found.not_found.share, found.not_found.floor),
            "found_again_share": cell(_point(found.missing.found_again)),
        }
    if not math.isnan(found.better):
        numbers["less_error"] = cell(_point(found.better))
    if not math.isnan(found.gain.gain):
        numbers["stable_gain"] = cell(_point(found.gain.gain), found.gain.floor)
        numbers["stable_gain_above_floor"] = cell(found.gain.above)
    short = say.lacks(decision.word, found.missing.share.value if found.missing else None)
    return Answer(decision.word, sentence, short=short, numbers=numbers)


def _point(value: float) -> Interval:
    return Interval(value, math.nan, math.nan)


def _by_witness(kin: Kin, smaller: Axis, larger: Axis, limits: CompleteLimits) -> Answer:
    """Rule B: one or two starts of the larger SAE; each pair by the word of third SAEs."""
    judged: list[tuple[Decision, say.Pair]] = []
    for small, large in _pairs(kin, smaller, larger):
        witnesses = kin.witnesses(large, larger)
        decisions, heard = [], []
        for view in kin.views((small, large, *witnesses)):
            gain = gain_both_ways(view.documents, small, large) or UNKNOWN
            heard = [
                (witness, witnessed(view.family, small, large, witness), gain)
                for witness in witnesses
                if not kin.uncompared([(small, large), (large, witness), (small, witness)])
            ]
            decisions.append(
                completeness_alone([(seen, gain) for _, seen, gain in heard], limits=limits)
            )
        judged.append((agreed(decisions), say.Pair(small, large, heard)))
    words = {decision.word for decision, _ in judged}
    word = words.pop() if len(words) == 1 else "undecided"
    numbers: dict[str, Cell] = {}
    for _, pair in judged:
        for _, seen, gain in pair.heard[:1]:
            end = "" if len(judged) == 1 else f" ({pair.large})"
            numbers[f"missing_witnessed_share{end}"] = cell(_point(seen.missing), seen.missing_back)
            numbers[f"missing_witnessed_difference{end}"] = cell(seen.above)
            if not math.isnan(gain.value):
                numbers[f"witnessed_gain{end}"] = cell(gain)
    witnessed_shares = [seen.missing for _, pair in judged for _, seen, _ in pair.heard[:1]]
    share = float(np.mean(witnessed_shares)) if witnessed_shares else None
    near = any(decision.near for decision, _ in judged)
    sentence = with_nearness(say.by_witness(word, judged, limits), near)
    return Answer(word, sentence, short=say.lacks(word, share), numbers=numbers)


def _pairs(kin: Kin, smaller: Axis, larger: Axis) -> list[tuple[str, str]]:
    """Each larger start with the smaller SAE of its seed, or else with the first."""
    small = kin.of(smaller)
    return [
        (next((s for s in small if kin.seeds[s] == kin.seeds[large]), small[0]), large)
        for large in kin.of(larger)
    ]


NO, NONE_FOUND, UNDECIDED, NOT_MEASURABLE = "no", "none-found", "undecided", "not-measurable"
SHARE = (0, 1)
MEANINGS = {
    "missing": "share of what other seeds of the larger find that must be missing in the smaller, "
    "beyond the floor, for it to be incomplete; with less, none is missing",
    "worth": "share of the error that adding it must remove, beyond the floor, for the smaller to "
    "be incomplete",
    "worth_alone": "the same where a size has fewer than three seeds",
    "latents": "latents of each SAE that a witness must find",
    "reproducible": "share of a larger SAE's latents that another seed must find for finding "
    "nothing missing to count",
    "worthless": "share of the error; where adding what is missing removes less, nothing that "
    "matters is missing",
    "better": "how much less error than the smaller SAE the larger may leave, as a share of the "
    "smaller's, before finding nothing missing leaves the question open",
    "worse": "how much more error than the smaller SAE the larger may leave, as a share of the "
    "smaller's, before nothing can be said",
    "sums": "share of random directions that sums of the smaller's latents must leave over; at "
    "this or less, nothing can be said",
}
COMPLETE = Question(
    "complete?",
    help="Does a dictionary have all that the next larger one reproducibly finds?",
    cells="\"lacks\": the share that it neither finds nor spans by sums of its latents.",
    needs=("stitching", COMPARISON, INSERTION),
    answers=(NO, NONE_FOUND, UNDECIDED, NOT_MEASURABLE, NOT_JUDGED),
    rule=_rule,
    plans=(Planned(COMPARISON, "family"), Planned(INSERTION, "steps", "witnesses")),
    margins=tuple(
        Margin(
            name, getattr(DEFAULTS, name), meaning,
            between=(1, math.inf) if name == "latents" else SHARE,
        )
        for name, meaning in MEANINGS.items()
    ),
)  # fmt: skip
