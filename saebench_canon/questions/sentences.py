"""Numbers as sentences print them: shares, intervals, floors, and what is missing."""

from __future__ import annotations

from saebench_canon.plugin.line import Cell, Estimate

PLACES = 2  # decimals of a share
EQUAL = 12  # decimals to which a share and a margin that print alike are the same


def number(estimate: Estimate, places: int = PLACES) -> str:
    """An estimate with its interval, as a sentence prints it."""
    ends = "" if estimate.half_width is None else f" {interval(estimate, places)}"
    return f"{short(estimate.value, places)}{ends}"


def interval(estimate: Estimate, places: int = PLACES) -> str:
    """Both ends of an interval."""
    assert estimate.lo is not None
    assert estimate.hi is not None
    return f"[{short(estimate.lo, places)}, {short(estimate.hi, places)}]"


def places_apart(margin: float, *values: float) -> int:
    """As many decimals as tell the values from the margin; those that agree to 12 are equal."""
    for places in range(PLACES, EQUAL):
        same = [value for value in values if f"{value:.{places}f}" == f"{margin:.{places}f}"]
        if all(abs(value - margin) < 10**-EQUAL for value in same):
            return places
    return EQUAL


def short(value: float, places: int = PLACES) -> str:
    """Two decimals, or more, without the zero in front, as papers print shares."""
    text = f"{value:.{places}f}"
    text = f"{0:.{places}f}" if float(text) == 0 else text
    return text.replace("0.", ".", 1) if abs(value) < 1 and text.lstrip("-")[0] == "0" else text


def counted(number: float) -> str:
    """A large count in k, M or B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"


def negated(estimate: Estimate) -> Estimate:
    """The same estimate with the other sign."""
    return Estimate(
        -estimate.value,
        estimate.half_width,
        estimate.n,
        estimate.unit,
        estimate.kind,
        tuple(-value for value in estimate.values),
        estimate.stderr,
        estimate.df,
    )


def at_floor_share(cell: Cell) -> str:
    """The floor of a share, in brackets."""
    return "" if cell.floor is None else f" (floor {short(cell.floor.value)})"


def verb_of(gain: Estimate) -> str:
    """What a gain does to the error."""
    return "adds" if gain.value < 0 else "removes"


def changes(gain: Cell) -> str:
    """A gain in words: its sign is in the verb."""
    assert gain.estimate is not None
    size = negated(gain.estimate) if gain.estimate.value < 0 else gain.estimate
    return f"{verb_of(gain.estimate)} {number(size)}"


def at_floor(gain: Cell) -> str:
    """The floor of a gain, with its own verb where that is another."""
    if gain.floor is None or gain.estimate is None:
        return ""
    verb = verb_of(gain.floor)
    told = "" if verb == verb_of(gain.estimate) else f": {verb}"
    return f" (floor{told} {short(abs(gain.floor.value))})"
