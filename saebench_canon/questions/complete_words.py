"""How the sentences of complete? put their numbers into words."""

from __future__ import annotations

from dataclasses import replace

from saebench_canon.plugin.line import Cell, Estimate, Line
from saebench_canon.plugin.question import Margins
from saebench_canon.questions.seeds import lacking_seeds
from saebench_canon.questions.sentences import (
    PLACES,
    at_floor,
    at_floor_share,
    changes,
    interval,
    negated,
    number,
    short,
)
from saebench_canon.tables.stats import difference


def missing_and_gain(novel: Cell, gain: Cell, places: int = PLACES) -> str:
    """What is missing and what adding it does, with their floors."""
    assert novel.estimate is not None
    return (
        f"{number(novel.estimate, places)} of what the larger finds again and again is missing"
        f"{at_floor_share(novel)}; adding it {changes(gain)} of the error{at_floor(gain)}"
    )


def of_training(line: Line, margins: Margins) -> str:
    """That the smaller SAE may lack something for want of training, where its seeds disagree."""
    own = line.cells["reproducible_share"].floor_small
    if own is None or own.seeds < margins["seeds"] or own.value >= margins["reproducible"]:
        return ""
    return (
        f"; only {number(own)} of the smaller's own latents come back with another seed "
        f"(limit {short(margins['reproducible'])}), so that may be its training more than its width"
    )


def unexplained(better: Estimate | None, margins: Margins) -> str:
    """Why nothing found missing does not mean that nothing is."""
    if better is None:
        return "the errors of both SAEs were not measured"
    return (
        f"yet the larger leaves {more_or_less(better)} (limit {short(margins['better'])}), by "
        "latents that come near the smaller's or that not every seed finds"
    )


def what_is_open(novel: Estimate, gain: Estimate, more: Estimate, worth: Estimate) -> str:
    """What keeps the question open, in intervals above the floor."""
    spans = [
        f"{name} above its floor in {interval(each)}"
        for name, each in (("stable_novel_share", more), ("stable_gain", worth))
        if each.lo is not None
    ]
    return " and ".join(spans) or "no interval"


def less_error(line: Line) -> Estimate | None:
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


def more_or_less(better: Estimate) -> str:
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


def of_the_paper(line: Line, margins: Margins) -> str | None:
    """What the paper's own scores say where the question cannot be judged; None without them."""
    novel, gain = line.cells.get("novel_share"), line.cells.get("novel_gain")
    if novel is None or gain is None or novel.estimate is None or gain.estimate is None:
        return None
    parts = [
        f"{number(novel.estimate)} of the larger's latents are novel{at_floor_share(novel)}",
        f"inserting them {changes(gain)} of the error{at_floor(gain)}",
    ]
    if novel.estimate.seeds < margins["seeds"]:
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
