"""Axes of a suite: how a table multiplies, what a condition selects, which SAEs are paired."""

from __future__ import annotations

import math
import operator
import re
import string
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import combinations, pairwise, permutations, product
from typing import Any, Protocol, TypeVar

from saebench_canon.errors import CanonError, nearest

AxisValue = int | float | str | bool
Axes = Mapping[str, AxisValue]
Condition = Callable[[AxisValue], bool]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<=": operator.le,
    ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


class HasAxes(Protocol):
    """What can be paired or grouped along an axis."""

    @property
    def name(self) -> str: ...

    @property
    def axes(self) -> Axes: ...

    @property
    def data(self) -> str | None: ...


S = TypeVar("S", bound=HasAxes)


def multiply(
    axes: Mapping[str, Sequence[AxisValue]], exclude: Sequence[Axes]
) -> Iterator[dict[str, AxisValue]]:
    """Every combination of the axes in written order, without those that `exclude` matches."""
    for values in product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        if not any(all(point[key] == value for key, value in drop.items()) for drop in exclude):
            yield point


def fields_of(template: str) -> set[str]:
    """The axes that a template fills in; of one that is none, `fill` says so."""
    try:
        return {field for _, field, _, _ in string.Formatter().parse(template) if field}
    except ValueError:
        return set()


def fill(template: str, axes: Axes, *, key: str, where: str) -> str:
    """A name or URI with `{axis}` filled in."""
    try:
        fields = [
            (field, layout or "")
            for _, field, layout, _ in string.Formatter().parse(template)
            if field is not None
        ]
    except ValueError as error:
        raise CanonError(f"'{key}' is not a template: {error}", where=where) from None
    for field, layout in fields:
        if field not in axes:
            raise CanonError(
                f"'{key}' names the axis '{{{field}}}', which this table does not have",
                where=where, hint=nearest(field, axes),
            )  # fmt: skip
        if "{" in layout or any(len(size) > 2 for size in re.findall(r"[1-9]\d*", layout)):
            raise CanonError(
                f"'{key}' fills in '{{{field}:{layout}}}', which is wider than 99 letters",
                where=where,
            )
    try:
        return template.format(**axes)
    except (ValueError, OverflowError) as error:
        raise CanonError(f"'{key}' cannot be filled in: {error}", where=where) from None


def condition(text: AxisValue | list[AxisValue], *, where: str) -> Condition:
    """The test that a `where` value stands for: `"<= 3072"`, `"!= relu"`, a value, or a list."""
    if isinstance(text, list) and text and not any(isinstance(entry, list) for entry in text):
        any_of = [condition(entry, where=where) for entry in text]
        return lambda value: any(holds(value) for holds in any_of)
    if isinstance(text, list | dict):
        raise CanonError(
            f"{text!r} is not a condition", where=where,
            hint="Write a value, a list of values, or a bound such as '<= 3072'.",
        )  # fmt: skip
    if not isinstance(text, str):
        return lambda value: value == text
    match = re.fullmatch(r"\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*", text)
    if match is None:
        if text.lstrip()[:1] in ("=", "!", "<", ">"):
            raise CanonError(f"'{text}' is not a condition", where=where,
                             hint="A bound starts with ==, !=, <, <=, > or >=.")  # fmt: skip
        return lambda value: str(value) == text
    compare, bound = _COMPARE[match[1]], match[2]
    if match[1] in ("==", "!="):
        return lambda value: (
            compare(str(value), bound)
            if isinstance(value, str)
            else compare(value, _number(bound, where))
        )
    number = _number(bound, where)
    return lambda value: not isinstance(value, str | bool) and compare(value, number)


def _number(text: str, where: str) -> float:
    with suppress(ValueError):
        number = float(text.replace("_", ""))
        if not math.isnan(number):
            return number
    raise CanonError(f"'{text}' is not a number", where=where)


def without(axes: Axes, axis: str) -> tuple[tuple[str, AxisValue], ...]:
    """All axes but one: what the members of a ladder or group share."""
    return tuple(sorted((key, value) for key, value in axes.items() if key != axis))


def ladders(saes: Iterable[S], axis: str) -> list[list[S]]:
    """SAEs that share data and all axes but one, each set sorted along that axis."""
    sets: dict[Any, list[S]] = defaultdict(list)
    for sae in saes:
        if axis in sae.axes:
            sets[sae.data, without(sae.axes, axis)].append(sae)
    for ladder in sets.values():
        _refuse_twins(ladder, axis)
    return [sorted(ladder, key=lambda sae: _order(sae.axes[axis])) for ladder in sets.values()]


def _refuse_twins(saes: Sequence[HasAxes], axis: str) -> None:
    """Raise CanonError for two SAEs with the same value on an axis: they have no order."""
    by_value: dict[AxisValue, HasAxes] = {}
    for sae in saes:
        value = sae.axes[axis]
        if value in by_value:
            raise CanonError(
                f"'{by_value[value].name}' and '{sae.name}' have the same axes and data",
                hint="Add an axis in which they differ.",
            )
        by_value[value] = sae


def pairs(saes: Iterable[S], axis: str) -> Iterator[tuple[S, S]]:
    """Neighbours along the axis by value, smaller first, with equal other axes."""
    for ladder in ladders(saes, axis):
        yield from pairwise(ladder)


def all_pairs(saes: Iterable[S], axis: str) -> Iterator[tuple[S, S]]:
    """Every two SAEs along the axis, smaller first, with equal other axes."""
    for ladder in ladders(saes, axis):
        yield from combinations(ladder, 2)


WIDTH, SEED = "width", "seed"


def families(saes: Iterable[S]) -> list[list[S]]:
    """SAEs that share data and all axes but width and seed, sorted by both; others are in none."""
    sets: dict[Any, list[S]] = defaultdict(list)
    for sae in saes:
        if WIDTH in sae.axes:
            rest = {key: value for key, value in sae.axes.items() if key not in (WIDTH, SEED)}
            sets[sae.data, tuple(sorted(rest.items()))].append(sae)
    return [
        sorted(family, key=lambda sae: (_order(sae.axes[WIDTH]), _order(sae.axes.get(SEED, 0))))
        for family in sets.values()
    ]


def family_pairs(saes: Iterable[S]) -> Iterator[tuple[S, S]]:
    """Every two SAEs of a family that are at most two sizes apart, smaller first.

    A step is judged by both of its sizes and by the next larger one, as a witness.
    """
    for family in families(saes):
        size = {sae.name: at for at, sized in enumerate(by_width(family)) for sae in sized}
        for smaller, larger in combinations(family, 2):
            if size[larger.name] - size[smaller.name] <= APART:
                yield smaller, larger


def steps(saes: Iterable[S]) -> Iterator[tuple[S, S]]:
    """Receiver and giver: a smaller SAE and each of the next larger width; seeds of larger widths.

    Two SAEs of one width are paired in both orders, as a floor. Where a larger width has fewer
    than three SAEs there is no floor, and a step is taken in both directions.
    """
    for family in families(saes):
        sizes = by_width(family)
        for smaller, larger in pairwise(sizes):
            yield from product(smaller, larger)
            if len(larger) >= ENOUGH:
                yield from permutations(larger, 2)
            else:
                yield from product(larger, smaller)


def witnesses(sizes: Sequence[Sequence[S]], subject: Sequence[S]) -> Sequence[S]:
    """The SAEs of a family that may bear out what one of the subject finds and the other lacks.

    `sizes` are the family's SAEs by width. Witnesses are the other SAEs of the subject's larger
    width, if it has three or more; else those of the next larger width; else the other ones after
    all.
    """
    widths = {sae.axes[WIDTH] for sae in subject}
    at = max(index for index, size in enumerate(sizes) if size[0].axes[WIDTH] in widths)
    others = [sae for sae in sizes[at] if sae not in subject]
    if len(sizes[at]) < ENOUGH and at + 1 < len(sizes):
        return sizes[at + 1]
    return others


APART = 2  # sizes
ENOUGH = 3  # SAEs of a width: one has a latent, one finds it, and one is held against them


def by_width(family: Iterable[S]) -> list[list[S]]:
    """The SAEs of each width, smaller first."""
    sizes: dict[AxisValue, list[S]] = defaultdict(list)
    for sae in family:
        sizes[sae.axes[WIDTH]].append(sae)
    return list(sizes.values())


def _order(value: AxisValue) -> tuple[bool, Any]:
    return isinstance(value, str), value
