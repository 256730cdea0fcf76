"""The two tests of atomic?: sums of a smaller SAE's latents, and of meta-latents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from saebench_canon.plugin.by_line import why_missing
from saebench_canon.plugin.line import Cell, Estimate, Line
from saebench_canon.plugin.question import Margins
from saebench_canon.questions.seeds import lacking_seeds
from saebench_canon.questions.sentences import interval, number, places_apart, short
from saebench_canon.tables.stats import difference

NEAR = "of the rows are near rows kept out"


@dataclass(frozen=True)
class Test:
    """What one of the two tests says: of what the latents may be sums, by which numbers."""

    of: str  # what they may be sums of
    excess: Estimate  # share of sums beyond chance
    beyond: Estimate | None  # the same above its floor, where there is one; None: floor missing
    floor: Estimate | None
    recall: Cell | None

    def beyond_chance(self) -> str:
        """The share of sums beyond chance, with its floor."""
        said = f"{number(self.excess)} sums of {self.of}"
        if self.floor is None or self.beyond is None:
            return said
        return f"{said} (floor {short(self.floor.value)}, above it {interval(self.beyond)})"


def of_pair(line: Line | None, margins: Margins) -> Test | str:
    if line is None:
        return "no smaller SAE was compared"
    if line.unfit:
        return "the smaller SAE is not fit to be compared"
    excess = line.cells.get("composed_excess")
    if excess is None or excess.estimate is None:
        return f"of sums of smaller latents, {why_missing('composed_excess', excess).rstrip('.')}"
    if excess.estimate.seeds < margins["seeds"] or excess.estimate.lo is None:
        told = f"{number(excess.estimate)} of the latents are sums of smaller ones, beyond chance"
        return f"{told}; {lacking_seeds(excess.estimate, margins)}"
    floor = excess.floor
    if floor is None or floor.seeds < margins["seeds"] or floor.lo is None:
        floor = beyond = None
    else:
        floor = _at_least_none(floor)
        beyond = difference(excess.estimate, floor)
    of = f"{line.key[0]} smaller latents"
    return Test(of, excess.estimate, beyond, floor, line.cells.get("planted_recall"))


def _at_least_none(floor: Estimate) -> Estimate:
    """A floor that chance alone has put below 0 is none: it must not lift what stands above it."""
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
        told = f"{number(excess.estimate)} of the latents are sums of meta-latents, beyond chance"
        return f"{told}; {lacking_seeds(excess.estimate, margins)}"
    recall = line.cells.get("planted_recall")
    return Test("shared meta-latents", excess.estimate, excess.estimate, None, recall)


def composition_in(test: Test, margins: Margins) -> str:
    """That a test finds composition, and by what."""
    assert test.beyond is not None
    assert test.beyond.lo is not None
    places = places_apart(margins["composed"], test.beyond.lo)
    limit = f"limit {short(margins['composed'], places)}"
    said = f"{number(test.excess, places)} of the latents are sums of {test.of}, beyond chance"
    if test.floor is None:
        return f"{said} ({limit})"
    floor = f"floor between seeds {short(test.floor.value)}"
    return f"{said} ({floor}, above it {interval(test.beyond, places)}, {limit})"


def clear(test: Test, margins: Margins) -> bool:
    """Whether a test that finds planted sums finds none of the dictionary's own."""
    recall = planted_recall(test)
    return (
        test.excess.hi is not None
        and test.excess.hi < margins["atomic"]
        and recall.lo is not None
        and recall.lo >= margins["recall"]
    )


def planted_recall(test: Test) -> Estimate:
    """The share of planted sums that the test finds; none of them where nobody looked."""
    if test.recall is None or test.recall.estimate is None:
        return Estimate(0.0, None, None, "seeds", "point", ())
    return test.recall.estimate


def unproven(test: Test, margins: Margins) -> Iterator[str]:
    """That a test's silence counts for nothing, where nobody knows that it finds planted sums."""
    if test.recall is None or test.recall.estimate is None:
        lost = why_missing("planted_recall", test.recall).rstrip(".")
        yield f"of sums of {test.of}, {lost}"
        return
    found = test.recall.estimate
    told = f"planted sums of {test.of} are found by {number(found)}"
    if found.lo is None:
        yield f"{told}; {lacking_seeds(found, margins)}"
    elif found.lo < margins["recall"]:
        yield f"{told} (limit {short(margins['recall'])})"


def above(estimate: Estimate | None, limit: float) -> bool:
    return estimate is not None and estimate.lo is not None and estimate.lo > limit
