"""How the sentences of unique? put their numbers into words."""

from __future__ import annotations

from collections.abc import Mapping

from saebench_canon.plugin.table_line import Cell
from saebench_canon.questions.by_other_seeds import FoundAgain
from saebench_canon.questions.numbers_in_sentences import decimals_apart, ends, short

WAYS = {"codes": "codes too", "encoder": "encoders too"}
VARIANCE = "shared_variance"
OTHERS = (
    *(f"found_by_{count}_{way}" for way in WAYS for count in ("two", "one", "none")),
    VARIANCE,
)


def sentence(
    found: FoundAgain, null: float | None, limit: float, matched: Mapping[str, Cell], *, same: bool
) -> str:
    """What another seed finds, and how many latents two others find, one, or neither."""
    if found.by_seed.shape[1] == 1:
        one, other = (short(float(share)) for share in found.by_seed[:, 0])
        head = f"{one} and {other} of two seeds' latents are found by the other"
        more = "; a third seed would tell which are found by every other"
        return f"{head}{_chance(null)}{_others(matched)}{more}."
    decimals = decimals_apart(limit, found.shared.lo)
    lo, hi = (short(end, decimals) for end in (found.shared.lo, found.shared.hi))
    share = f"{short(found.shared.value, decimals)} [{lo}, {hi}] of the latents"
    head = "The same latents with every seed: another seed" if same else "Another seed"
    limits = f"the same from {short(limit, decimals)} on{_chance(null)}"
    two, one, none = (_share(found, column) for column in range(3))
    parts = f"{two} are found by two others, {one} by one, {none} by neither"
    return f"{head} finds {share} ({limits}); {parts}{_others(matched)}."


def _share(found: FoundAgain, column: int) -> str:
    """A share with its interval, or with each seed's value where they are few."""
    share = short(found.shares[column])
    if found.intervals:
        interval = found.intervals[column]
        return f"{share} {ends(interval.lo, interval.hi, share=True)}"
    values = ", ".join(short(float(value)) for value in found.by_seed[:, column])
    return f"{share} ({values})"


def _chance(null: float | None) -> str:
    return "" if null is None else f"; random rows {short(null)}"


def _others(matched: Mapping[str, Cell]) -> str:
    """The same shares where codes or encoders must agree too, and the variance that is carried."""
    parts = []
    for way, text in WAYS.items():
        cells = [matched.get(f"found_by_{count}_{way}") for count in ("two", "one", "none")]
        values = [short(of.estimate.value) for of in cells if of is not None and of.estimate]
        if values:
            parts.append(f"where {text} must agree {' / '.join(values)}")
    carried = matched.get(VARIANCE)
    if carried is not None and carried.estimate is not None:
        share = short(carried.estimate.value)
        parts.append(f"those found by two carry {share} of the explained variance")
    return "".join(f"; {part}" for part in parts)


def by_chance(null: float, limit: float) -> str:
    """The sentence where random rows are found, too."""
    decimals = decimals_apart(limit, null)
    found = f"another seed's random rows find {short(null, decimals)} of random rows"
    return f"not measurable here: {found} (limit {short(limit, decimals)})."


def cell_of(found: FoundAgain, word: str) -> str:
    """What a grid says."""
    if word == "same":
        return f"same: {short(found.shared.value)}"
    if found.by_seed.shape[1] == 1:
        return f"{short(found.shares[0])} by one"
    return " / ".join(short(share) for share in found.shares)
