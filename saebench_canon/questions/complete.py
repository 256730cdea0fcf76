"""Complete? Whether a larger dictionary reproducibly finds what a smaller one lacks (ours)."""

from __future__ import annotations

from saebench_canon.plugin.line_rules import by_line, why_missing
from saebench_canon.plugin.question import (
    NOT_JUDGED,
    NOT_MEASURABLE,
    Answer,
    Margin,
    Margins,
    Question,
)
from saebench_canon.plugin.table_line import Cell, Estimate, Line
from saebench_canon.questions.complete_sentences import (
    less_error,
    missing_and_gain,
    more_or_less,
    of_the_paper,
    of_training,
    open_intervals,
    why_open,
)
from saebench_canon.questions.fitness import fitness
from saebench_canon.questions.numbers_in_sentences import decimals_apart, interval, number, short
from saebench_canon.questions.seeds import SEEDS, has_seeds, lacking_seeds
from saebench_canon.tables.stats import difference

NO, NONE_FOUND, UNDECIDED = "no", "none-found", "undecided"
REPRODUCIBLE, NOVEL, GAIN = "reproducible_share", "stable_novel_share", "stable_gain"
ERRORS = ("small_mse_rescaled", "large_mse_rescaled", "small_mse", "large_mse")
OF_THE_PAPER = ("novel_share", "novel_gain", REPRODUCIBLE)


def complete(line: Line, margins: Margins) -> Answer:
    """The answer at one step of a ladder, and the sentence that carries its numbers.

    The rule checks in this order: can it be measured, is it incomplete, is nothing missing.
    """
    reproducible = line.cells.get(REPRODUCIBLE)
    if reproducible is None or reproducible.estimate is None:
        reason = of_the_paper(line, margins) or why_missing(REPRODUCIBLE, reproducible)
        return Answer.on(line, NOT_JUDGED, f"not judged: {reason}", *OF_THE_PAPER)
    if reproducible.estimate.seeds < margins["seeds"] or reproducible.estimate.lo is None:
        reason = of_the_paper(line, margins) or f"{lacking_seeds(reproducible.estimate, margins)}."
        return Answer.on(line, NOT_JUDGED, f"not judged: {reason}", *OF_THE_PAPER)
    if blind := _not_measurable(line, reproducible.estimate, margins):
        return blind
    novel, gain = line.cells.get(NOVEL), line.cells.get(GAIN)
    for name, cell in ((NOVEL, novel), (GAIN, gain)):
        if cell is None or cell.estimate is None:
            reason = why_missing(name, cell)
            return Answer.on(line, NOT_JUDGED, f"not judged: {reason}", NOVEL, GAIN)
        if not has_seeds(cell.estimate, margins):
            reason = f"{name}: {lacking_seeds(cell.estimate, margins)}."
            return Answer.on(line, NOT_JUDGED, f"not judged: {reason}", NOVEL, GAIN)
    assert novel is not None
    assert gain is not None
    word, sentence = _judged(line, novel, gain, margins)
    return Answer.on(line, word, sentence, REPRODUCIBLE, NOVEL, GAIN, *_errors(line))


def _judged(line: Line, novel: Cell, gain: Cell, margins: Margins) -> tuple[str, str]:
    assert novel.estimate is not None
    assert gain.estimate is not None
    more, worth = _above(novel, margins), _above(gain, margins)
    ends = [end for share in (novel.estimate, more) if share for end in (share.lo, share.hi) if end]
    decimals = decimals_apart(margins["missing"], *ends)
    limit, share = short(margins["missing"], decimals), missing_and_gain(novel, gain)
    exactly = missing_and_gain(novel, gain, decimals)
    if (
        more is not None
        and worth is not None
        and _above_limit(more, margins["missing"])
        and _above_limit(worth, margins["worth"])
    ):
        limits = (
            f"above the floor {interval(more, decimals)} and {interval(worth)}, "
            f"limits {limit} and {short(margins['worth'])}"
        )
        return NO, f"Not complete: {exactly} ({limits}){of_training(line, margins)}."
    better = less_error(line)
    if _below(novel.estimate, margins["missing"]) and _below(gain.estimate, margins["worthless"]):
        if better is None or not _below(better, margins["better"]):
            return UNDECIDED, f"undecided: {share}; {why_open(better, margins)}."
        limits = (
            f"limits {limit} and {short(margins['worthless'])}; "
            f"the larger leaves {more_or_less(better)}, limit {short(margins['better'])}"
        )
        width = line.key[-1]
        return NONE_FOUND, f"No incompleteness found up to width {width}: {exactly} ({limits})."
    if more is None or worth is None:
        return UNDECIDED, f"undecided, for want of a floor: {share}."
    spans = open_intervals(novel.estimate, gain.estimate, more, worth)
    return UNDECIDED, f"undecided: {share}; {spans}."


def _not_measurable(line: Line, reproducible: Estimate, margins: Margins) -> Answer | None:
    if reproducible.lo is not None and reproducible.lo < margins["reproducible"]:
        decimals = decimals_apart(margins["reproducible"], reproducible.lo)
        reason = (
            f"{number(reproducible, decimals)} of the larger's latents come back with every other "
            f"seed (limit {short(margins['reproducible'], decimals)}), "
            "so what it has more of is not reliable"
        )
        return Answer.on(line, NOT_MEASURABLE, f"not measurable here: {reason}.", REPRODUCIBLE)
    better = less_error(line)
    if better is not None and better.value < -margins["worse"]:
        reason = (
            f"the larger SAE leaves {more_or_less(better)} than the smaller "
            f"(limit {short(margins['worse'])}), each at its best scale"
        )
        return Answer.on(line, NOT_MEASURABLE, f"not measurable here: {reason}.", *_errors(line))
    low = line.cells.get("span_residual_null_low")
    if low is not None and low.estimate is not None and low.estimate.value <= margins["sums"]:
        reason = (
            f"sums of the smaller's latents come as near as {short(low.estimate.value)} to random "
            f"directions (limit {short(margins['sums'])}): d is too small"
        )
        sentence = f"not measurable here: {reason}."
        return Answer.on(line, NOT_MEASURABLE, sentence, "span_residual_null_low")
    return None


def _errors(line: Line) -> tuple[str, ...]:
    """The two scores that compare the SAEs' errors: the rescaled ones where they are measured."""
    rescaled = all((cell := line.cells.get(name)) and cell.estimate for name in ERRORS[:2])
    return ERRORS[:2] if rescaled else ERRORS[2:]


def _above(cell: Cell, margins: Margins) -> Estimate | None:
    """The score above its floor at the larger width; None without a floor from enough seeds."""
    if cell.estimate is None or cell.floor is None or not has_seeds(cell.floor, margins):
        return None
    return difference(cell.estimate, cell.floor)


def _above_limit(estimate: Estimate, limit: float) -> bool:
    return estimate.lo is not None and estimate.lo > limit


def _below(estimate: Estimate, limit: float) -> bool:
    return estimate.hi is not None and estimate.hi < limit


SHARE = (0, 1)
COMPLETE = Question(
    "complete?",
    help="Does a larger dictionary reproducibly find what a smaller one lacks?",
    needs=(
        "stitching.reproducible_share", "stitching.stable_novel_share", "stitching.stable_gain",
    ),
    answers=(NO, NONE_FOUND, UNDECIDED, NOT_MEASURABLE, NOT_JUDGED),
    rule=by_line("stitching", complete, steps=True, notes=fitness),
    margins=(
        SEEDS,
        Margin("reproducible", 0.5, "share of an SAE's latents that its other seeds must find "
               "again for what it has to count as reliable", between=SHARE),
        Margin("worse", 0.05, "how much more error than the smaller SAE the larger may leave, as a "
               "share of the smaller's, before nothing can be said", between=SHARE),
        Margin("better", 0.05, "how much less error than the smaller SAE the larger may leave, as "
               "a share of the smaller's, before finding nothing missing leaves the question open",
               between=SHARE),
        Margin("sums", 0.25, "share of random directions that sums of the smaller's latents must "
               "leave over; at this or less, nothing can be said", between=SHARE),
        Margin("missing", 0.05, "share of the larger's reproducible latents that the smaller must "
               "lack, beyond the floor, to be incomplete; with less, none is missing",
               between=SHARE),
        Margin("worth", 0.01, "share of the error that adding them must remove, beyond the floor, "
               "for the smaller to be incomplete", between=SHARE),
        Margin("worthless", 0.02, "share of the error; where adding them removes less, nothing "
               "that matters is missing", between=SHARE),
    ),
)  # fmt: skip
