"""Numbers as sentences print them: shares, intervals and floors."""

from __future__ import annotations

from saebench_canon.plugin.table_line import Cell, Estimate

DECIMALS = 2  # decimals of a share
EQUAL = 12  # a share and a margin that agree to so many decimals are equal


def number(estimate: Estimate, decimals: int = DECIMALS) -> str:
    """An estimate with its interval, as a sentence prints it."""
    ends = "" if estimate.half_width is None else f" {interval(estimate, decimals)}"
    return f"{short(estimate.value, decimals)}{ends}"


def interval(estimate: Estimate, decimals: int = DECIMALS) -> str:
    """Both ends of an interval."""
    assert estimate.lo is not None
    assert estimate.hi is not None
    return f"[{short(estimate.lo, decimals)}, {short(estimate.hi, decimals)}]"


def decimals_apart(margin: float, *values: float) -> int:
    """How many decimals it takes to tell the values from the margin, at most 12."""
    for decimals in range(DECIMALS, EQUAL):
        same = [value for value in values if f"{value:.{decimals}f}" == f"{margin:.{decimals}f}"]
        if all(abs(value - margin) < 10**-EQUAL for value in same):
            return decimals
    return EQUAL


def short(value: float, decimals: int = DECIMALS) -> str:
    """A number without the zero before the point, as papers print shares."""
    text = f"{value:.{decimals}f}"
    text = f"{0:.{decimals}f}" if float(text) == 0 else text
    return text.replace("0.", ".", 1) if abs(value) < 1 and text.lstrip("-")[0] == "0" else text


def ends(lo: float, hi: float, *, share: bool = False) -> str:
    """Both ends of an interval; those of a share lie between 0 and 1."""
    if share:
        lo, hi = max(lo, 0.0), min(hi, 1.0)
    return f"[{short(lo)}, {short(hi)}]"


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
    """The floor of a gain in brackets, with a verb of its own if its sign differs."""
    if gain.floor is None or gain.estimate is None:
        return ""
    verb = verb_of(gain.floor)
    prefix = "" if verb == verb_of(gain.estimate) else f": {verb}"
    return f" (floor{prefix} {short(abs(gain.floor.value))})"
