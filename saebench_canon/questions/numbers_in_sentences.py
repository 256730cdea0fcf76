"""Numbers as sentences print them: shares, intervals and floors."""

from __future__ import annotations

from saebench_canon.plugin.table_line import Estimate

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
