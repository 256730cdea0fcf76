"""Complete? Whether a larger dictionary finds again and again what a smaller one lacks (ours)."""

from __future__ import annotations

from dataclasses import replace

from saebench_canon.plugin.line import Cell, Estimate, Line
from saebench_canon.questions.margins import Answer, Margins
from saebench_canon.questions.sentences import (
    PLACES,
    at_floor,
    at_floor_share,
    changes,
    interval,
    lacking_seeds,
    negated,
    number,
    places_apart,
    short,
    why_missing,
)
from saebench_canon.tables.stats import difference


def complete(line: Line, *, margins: Margins) -> tuple[Answer, str]:
    """The answer at one step of a ladder, and the sentence that carries its numbers.

    Asked in this order: can it be measured, is it incomplete, is nothing missing.
    """
    again = line.cells.get("reproducible_share")
    if again is None or again.estimate is None:
        told = _numbers(line, margins) or why_missing("reproducible_share", again)
        return "not judged", f"not judged: {told}"
    if again.estimate.seeds < margins.seeds or again.estimate.lo is None:
        told = _numbers(line, margins) or f"{lacking_seeds(again.estimate, margins)}."
        return "not judged", f"not judged: {told}"
    blind = _not_measurable(line, again.estimate, margins)
    if blind is not None:
        return "not measurable", f"not measurable here: {blind}."
    novel, gain = line.cells.get("stable_novel_share"), line.cells.get("stable_gain")
    for name, cell in (("stable_novel_share", novel), ("stable_gain", gain)):
        if cell is None or cell.estimate is None:
            return "not judged", f"not judged: {why_missing(name, cell)}"
        if not _told(cell.estimate, margins):
            return "not judged", f"not judged: {name}: {lacking_seeds(cell.estimate, margins)}."
    assert novel is not None
    assert gain is not None
    return _judged(line, novel, gain, margins)


def _judged(line: Line, novel: Cell, gain: Cell, margins: Margins) -> tuple[Answer, str]:
    assert novel.estimate is not None
    assert gain.estimate is not None
    more, worth = _above(novel, margins), _above(gain, margins)
    ends = [end for each in (novel.estimate, more) if each for end in (each.lo, each.hi) if end]
    places = places_apart(margins.missing, *ends)
    limit, said = short(margins.missing, places), _said(novel, gain)
    exactly = _said(novel, gain, places)
    if (
        more is not None
        and worth is not None
        and _above_limit(more, margins.missing)
        and _above_limit(worth, margins.worth)
    ):
        limits = (
            f"above the floor {interval(more, places)} and {interval(worth)}, "
            f"limits {limit} and {short(margins.worth)}"
        )
        return "no", f"Not complete: {exactly} ({limits}){_of_training(line, margins)}."
    better = _less_error(line)
    if _below(novel.estimate, margins.missing) and _below(gain.estimate, margins.worthless):
        if better is None or not _below(better, margins.better):
            return "undecided", f"undecided: {said}; {_unexplained(better, margins)}."
        limits = (
            f"limits {limit} and {short(margins.worthless)}; "
            f"the larger leaves {_more_or_less(better)}, limit {short(margins.better)}"
        )
        return "yes", f"No incompleteness found up to width {line.key[-1]}: {exactly} ({limits})."
    if more is None or worth is None:
        return "undecided", f"undecided, for want of a floor: {said}."
    return "undecided", f"undecided: {said}; {_open(novel.estimate, gain.estimate, more, worth)}."


def _said(novel: Cell, gain: Cell, places: int = PLACES) -> str:
    """What is missing and what adding it does, with their floors."""
    assert novel.estimate is not None
    return (
        f"{number(novel.estimate, places)} of what the larger finds again and again is missing"
        f"{at_floor_share(novel)}; adding it {changes(gain)} of the error{at_floor(gain)}"
    )


def _of_training(line: Line, margins: Margins) -> str:
    """That the smaller SAE may lack something for want of training, where its seeds disagree."""
    own = line.cells["reproducible_share"].floor_small
    if own is None or own.seeds < margins.seeds or own.value >= margins.reproducible:
        return ""
    return (
        f"; only {number(own)} of the smaller's own latents come back with another seed "
        f"(limit {short(margins.reproducible)}), so that may be its training more than its width"
    )


def _unexplained(better: Estimate | None, margins: Margins) -> str:
    """Why nothing found missing does not mean that nothing is."""
    if better is None:
        return "the errors of both SAEs were not measured"
    return (
        f"yet the larger leaves {_more_or_less(better)} (limit {short(margins.better)}), by "
        "latents that come near the smaller's or that not every seed finds"
    )


def _open(novel: Estimate, gain: Estimate, more: Estimate, worth: Estimate) -> str:
    """What keeps the question open, in intervals above the floor."""
    spans = [
        f"{name} above its floor in {interval(each)}"
        for name, each in (("stable_novel_share", more), ("stable_gain", worth))
        if each.lo is not None
    ]
    return " and ".join(spans) or "no interval"


def _not_measurable(line: Line, again: Estimate, margins: Margins) -> str | None:
    if again.lo is not None and again.lo < margins.reproducible:
        places = places_apart(margins.reproducible, again.lo)
        return (
            f"{number(again, places)} of the larger's latents come back with every other seed "
            f"(limit {short(margins.reproducible, places)}), so what it has more of is not reliable"
        )
    better = _less_error(line)
    if better is not None and better.value < -margins.worse:
        return (
            f"the larger SAE leaves {_more_or_less(better)} than the smaller "
            f"(limit {short(margins.worse)}), each at its best scale"
        )
    low = line.cells.get("span_residual_null_low")
    if low is not None and low.estimate is not None and low.estimate.value <= margins.sums:
        return (
            f"sums of the smaller's latents come as near as {short(low.estimate.value)} to random "
            f"directions (limit {short(margins.sums)}): d is too small"
        )
    return None


def _less_error(line: Line) -> Estimate | None:
    """How much less error the larger SAE leaves, as a share of the smaller's; None unmeasured.

    Errors are those at the one factor on all codes that suits each SAE best, where measured.
    """
    for name in ("mse_rescaled", "mse"):
        small, large = line.cells.get(f"small_{name}"), line.cells.get(f"large_{name}")
        if small is None or large is None or small.estimate is None or large.estimate is None:
            continue
        if small.estimate.value == 0:
            return None
        return _part(difference(small.estimate, large.estimate), small.estimate.value)
    return None


def _more_or_less(better: Estimate) -> str:
    """A share of the error saved, in words: its sign is in the word."""
    if better.value < 0:
        return f"{number(negated(better))} more error"
    return f"{number(better)} less error"


def _part(estimate: Estimate, whole: float) -> Estimate:
    """The estimate as a share of a number that is taken as known."""
    return replace(
        estimate,
        value=estimate.value / whole,
        half_width=None if estimate.half_width is None else estimate.half_width / whole,
        stderr=None if estimate.stderr is None else estimate.stderr / whole,
        values=tuple(value / whole for value in estimate.values),
    )


def _numbers(line: Line, margins: Margins) -> str | None:
    """What the paper's own scores say where the question cannot be judged; None without them."""
    novel, gain = line.cells.get("novel_share"), line.cells.get("novel_gain")
    if novel is None or gain is None or novel.estimate is None or gain.estimate is None:
        return None
    parts = [
        f"{number(novel.estimate)} of the larger's latents are novel{at_floor_share(novel)}",
        f"inserting them {changes(gain)} of the error{at_floor(gain)}",
    ]
    if novel.estimate.seeds < margins.seeds:
        parts.append(lacking_seeds(novel.estimate, margins))
    again = line.cells.get("reproducible_share")
    if again is None or again.estimate is None:
        parts.append("no peers say what comes back")
    if gain.floor is None:
        told = line.cells.get("residual_gain", gain)
        if told.estimate is not None and told.null is not None:
            above = told.estimate.value - told.null.value
            parts.append(f"no floor: above the random dictionary by {short(above)}")
    return f"{'; '.join(parts)}."


def _told(estimate: Estimate, margins: Margins) -> bool:
    """Whether an estimate rests on as many training seeds as it takes."""
    return estimate.seeds >= margins.seeds and not estimate.conditional


def _above(cell: Cell, margins: Margins) -> Estimate | None:
    """The score above its floor at the larger width; None without a floor of enough seeds."""
    if cell.estimate is None or cell.floor is None or not _told(cell.floor, margins):
        return None
    return difference(cell.estimate, cell.floor)


def _above_limit(estimate: Estimate, limit: float) -> bool:
    return estimate.lo is not None and estimate.lo > limit


def _below(estimate: Estimate, limit: float) -> bool:
    return estimate.hi is not None and estimate.hi < limit
