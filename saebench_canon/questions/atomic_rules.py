"""The two tests of atomic?: sums of a smaller SAE's latents, and of meta-latents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from saebench_canon.plugin.line_rules import why_missing
from saebench_canon.plugin.question import Margins
from saebench_canon.plugin.table_line import Cell, Estimate, Line
from saebench_canon.questions.numbers_in_sentences import decimals_apart, interval, number, short
from saebench_canon.questions.seeds import lacking_seeds
from saebench_canon.tables.stats import difference

NEAR = "of the rows are near rows kept out"


@dataclass(frozen=True)
class Test:
    """One of the two tests: what the latents may be sums of, and the numbers that say so."""

    summands: str  # what the latents may be sums of
    excess: Estimate  # share of latents that are sums, beyond chance
    beyond: Estimate | None  # the excess less its floor; None where the floor is missing
    floor: Estimate | None
    recall: Cell | None

    def beyond_chance(self) -> str:
        """The share of sums beyond chance, with its floor."""
        share = f"{number(self.excess)} sums of {self.summands}"
        if self.floor is None or self.beyond is None:
            return share
        return f"{share} (floor {short(self.floor.value)}, above it {interval(self.beyond)})"


def of_pair(line: Line | None, margins: Margins) -> Test | str:
    if line is None:
        return "no smaller SAE was compared"
    if line.unfit:
        return "the smaller SAE is not fit to be compared"
    excess = line.cells.get("composed_excess")
    if excess is None or excess.estimate is None:
        return f"of sums of smaller latents, {why_missing('composed_excess', excess).rstrip('.')}"
    if excess.estimate.seeds < margins["seeds"] or excess.estimate.lo is None:
        share = f"{number(excess.estimate)} of the latents are sums of smaller ones, beyond chance"
        return f"{share}; {lacking_seeds(excess.estimate, margins)}"
    floor = excess.floor
    if floor is None or floor.seeds < margins["seeds"] or floor.lo is None:
        floor = beyond = None
    else:
        floor = _at_least_none(floor)
        beyond = difference(excess.estimate, floor)
    summands = f"{line.key[0]} smaller latents"
    return Test(summands, excess.estimate, beyond, floor, line.cells.get("planted_recall"))


def _at_least_none(floor: Estimate) -> Estimate:
    """A floor below 0 is chance; it counts as 0, so that it does not raise the difference."""
    return replace(floor, value=max(floor.value, 0.0))


def of_meta(line: Line | None, margins: Margins) -> Test | str:
    if line is None:
        return "no meta-SAE was trained"
    excess, purged = line.cells.get("composed_excess"), line.cells.get("purged_share")
    if purged is not None and purged.estimate is not None and (
        purged.estimate.value > margins['purged']
    ):  # fmt: skip
        limit = f"limit {short(margins['purged'])}"
        return f"{short(purged.estimate.value)} {NEAR} ({limit})"
    if excess is None or excess.estimate is None:
        return f"of sums of meta-latents, {why_missing('composed_excess', excess).rstrip('.')}"
    if excess.estimate.seeds < margins["seeds"] or excess.estimate.lo is None:
        share = f"{number(excess.estimate)} of the latents are sums of meta-latents, beyond chance"
        return f"{share}; {lacking_seeds(excess.estimate, margins)}"
    recall = line.cells.get("planted_recall")
    return Test("shared meta-latents", excess.estimate, excess.estimate, None, recall)


def composition_in(test: Test, margins: Margins) -> str:
    """That a test finds composition, with its numbers."""
    assert test.beyond is not None
    assert test.beyond.lo is not None
    decimals = decimals_apart(margins["composed"], test.beyond.lo)
    limit = f"limit {short(margins['composed'], decimals)}"
    share = (
        f"{number(test.excess, decimals)} of the latents are sums of {test.summands}, beyond chance"
    )
    if test.floor is None:
        return f"{share} ({limit})"
    floor = f"floor between seeds {short(test.floor.value)}"
    return f"{share} ({floor}, above it {interval(test.beyond, decimals)}, {limit})"


def clear(test: Test, margins: Margins) -> bool:
    """Whether a test that finds planted sums finds no sums among the dictionary's latents."""
    recall = planted_recall(test)
    return (
        test.excess.hi is not None
        and test.excess.hi < margins["atomic"]
        and recall.lo is not None
        and recall.lo >= margins["recall"]
    )


def planted_recall(test: Test) -> Estimate:
    """The share of planted sums that the test finds; 0 where that was not measured."""
    if test.recall is None or test.recall.estimate is None:
        return Estimate(0.0, None, None, "training seed", "point", ())
    return test.recall.estimate


def unproven(test: Test, margins: Margins) -> Iterator[str]:
    """Why a test that finds no sums proves nothing: it may not find planted sums either."""
    if test.recall is None or test.recall.estimate is None:
        lost = why_missing("planted_recall", test.recall).rstrip(".")
        yield f"of sums of {test.summands}, {lost}"
        return
    recall = test.recall.estimate
    share = f"planted sums of {test.summands} are found by {number(recall)}"
    if recall.lo is None:
        yield f"{share}; {lacking_seeds(recall, margins)}"
    elif recall.lo < margins["recall"]:
        yield f"{share} (limit {short(margins['recall'])})"


def above(estimate: Estimate | None, limit: float) -> bool:
    return estimate is not None and estimate.lo is not None and estimate.lo > limit
