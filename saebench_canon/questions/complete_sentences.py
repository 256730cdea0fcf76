"""How the sentences of complete? put their numbers into words."""

from __future__ import annotations

from dataclasses import replace

from saebench_canon.plugin.question import Margins
from saebench_canon.plugin.table_line import Cell, Estimate, Line
from saebench_canon.questions.numbers_in_sentences import (
    DECIMALS,
    at_floor,
    at_floor_share,
    changes,
    interval,
    negated,
    number,
    short,
)
from saebench_canon.questions.seeds import lacking_seeds
from saebench_canon.tables.stats import difference


def missing_and_gain(novel: Cell, gain: Cell, decimals: int = DECIMALS) -> str:
    """The missing share and the gain of adding it, each with its floor."""
    assert novel.estimate is not None
    return (
        f"{number(novel.estimate, decimals)} of what the larger finds again and again is missing"
        f"{at_floor_share(novel)}; adding it {changes(gain)} of the error{at_floor(gain)}"
    )


def of_training(line: Line, margins: Margins) -> str:
    """A hint that the smaller SAE may be undertrained, if its own seeds disagree."""
    smaller = line.cells["reproducible_share"].floor_small
    if (
        smaller is None
        or smaller.seeds < margins["seeds"]
        or smaller.value >= margins["reproducible"]
    ):
        return ""
    return (
        f"; only {number(smaller)} of the smaller's own latents come back with another seed "
        f"(limit {short(margins['reproducible'])}), so that may be its training more than its width"
    )


def why_open(better: Estimate | None, margins: Margins) -> str:
    """Why the smaller SAE may lack something although no missing latents were found."""
    if better is None:
        return "the errors of both SAEs were not measured"
    return (
        f"yet the larger leaves {more_or_less(better)} (limit {short(margins['better'])}), by "
        "latents that come near the smaller's or that not every seed finds"
    )


def open_intervals(novel: Estimate, gain: Estimate, more: Estimate, worth: Estimate) -> str:
    """The intervals above the floors that leave the question undecided."""
    spans = [
        f"{name} above its floor in {interval(estimate)}"
        for name, estimate in (("stable_novel_share", more), ("stable_gain", worth))
        if estimate.lo is not None
    ]
    return " and ".join(spans) or "no interval"


def less_error(line: Line) -> Estimate | None:
    """How much less error the larger SAE leaves, as a share of the smaller's; None if not measured.

    Each SAE's codes are rescaled by the one factor that minimises its error, where that was
    measured.
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
    """A share of the error in words: "less" or "more" instead of a sign."""
    if better.value < 0:
        return f"{number(negated(better))} more error"
    return f"{number(better)} less error"


def _part(estimate: Estimate, total: float) -> Estimate:
    """The estimate divided by a number that is taken as exact."""
    return replace(
        estimate,
        value=estimate.value / total,
        half_width=None if estimate.half_width is None else estimate.half_width / total,
        stderr=None if estimate.stderr is None else estimate.stderr / total,
        values=tuple(value / total for value in estimate.values),
    )


def of_the_paper(line: Line, margins: Margins) -> str | None:
    """The paper's own scores, where the question cannot be judged; None if they are missing."""
    novel, gain = line.cells.get("novel_share"), line.cells.get("novel_gain")
    if novel is None or gain is None or novel.estimate is None or gain.estimate is None:
        return None
    parts = [
        f"{number(novel.estimate)} of the larger's latents are novel{at_floor_share(novel)}",
        f"inserting them {changes(gain)} of the error{at_floor(gain)}",
    ]
    if novel.estimate.seeds < margins["seeds"]:
        parts.append(lacking_seeds(novel.estimate, margins))
    reproducible = line.cells.get("reproducible_share")
    if reproducible is None or reproducible.estimate is None:
        parts.append("no peers say what comes back")
    if gain.floor is None:
        residual = line.cells.get("residual_gain", gain)
        if residual.estimate is not None and residual.null is not None:
            above = residual.estimate.value - residual.null.value
            parts.append(f"no floor: above the random dictionary by {short(above)}")
    return f"{'; '.join(parts)}."
