"""Axes of a suite: how a table multiplies, which values a condition keeps, what pairs with what."""

from __future__ import annotations

import operator
import re
import string
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise, product
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
    """Every combination of the axes in written order, less those that an exclude matches."""
    for values in product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        if not any(all(point[key] == value for key, value in drop.items()) for drop in exclude):
            yield point


def fill(template: str, axes: Axes, *, key: str, where: str) -> str:
    """A name or URI with `{axis}` filled in."""
    try:
        fields = [
            field for _, field, _, _ in string.Formatter().parse(template) if field is not None
        ]
    except ValueError as error:
        raise CanonError(f"'{key}' is not a template: {error}", where=where) from None
    for field in fields:
        if field not in axes:
            raise CanonError(
                f"'{key}' names the axis '{{{field}}}', which this table does not have",
                where=where, hint=nearest(field, axes),
            )  # fmt: skip
    try:
        return template.format(**axes)
    except ValueError as error:
        raise CanonError(f"'{key}' cannot be filled in: {error}", where=where) from None


def condition(text: AxisValue | list[AxisValue], *, where: str) -> Condition:
    """The test that a `where` value stands for: `"<= 3072"`, `"!= relu"`, a value, or a list."""
    if isinstance(text, list) and text and not any(isinstance(each, list) for each in text):
        any_of = [condition(each, where=where) for each in text]
        return lambda value: any(keeps(value) for keeps in any_of)
    if isinstance(text, list | dict):
        raise CanonError(
            f"{text!r} is no condition", where=where,
            hint="It is a value, a list of them, or a bound such as '<= 3072'.",
        )  # fmt: skip
    if not isinstance(text, str):
        return lambda value: value == text
    match = re.fullmatch(r"\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*", text)
    if match is None:
        if text.lstrip()[:1] in ("=", "!", "<", ">"):
            raise CanonError(f"'{text}' is no condition", where=where,
                             hint="It starts with ==, !=, <, <=, > or >=.")  # fmt: skip
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
    try:
        return float(text.replace("_", ""))
    except ValueError:
        raise CanonError(f"'{text}' is not a number", where=where) from None


def without(axes: Axes, axis: str) -> tuple[tuple[str, AxisValue], ...]:
    """All coordinates but one: what members of one ladder or group share."""
    return tuple(sorted((key, value) for key, value in axes.items() if key != axis))


def ladders(saes: Iterable[S], axis: str) -> list[list[S]]:
    """SAEs that share data and all axes but one, each set sorted along that axis."""
    sets: dict[Any, list[S]] = defaultdict(list)
    for sae in saes:
        if axis in sae.axes:
            sets[sae.data, without(sae.axes, axis)].append(sae)
    for each in sets.values():
        _refuse_twins(each, axis)
    return [sorted(each, key=lambda sae: _order(sae.axes[axis])) for each in sets.values()]


def _refuse_twins(saes: Sequence[HasAxes], axis: str) -> None:
    """Two SAEs at one place of an axis have no order between them."""
    seen: dict[AxisValue, HasAxes] = {}
    for sae in saes:
        value = sae.axes[axis]
        if value in seen:
            raise CanonError(
                f"'{seen[value].name}' and '{sae.name}' are alike in every axis and in their data",
                hint="Give them an axis that tells them apart.",
            )
        seen[value] = sae


def pairs(saes: Iterable[S], axis: str) -> Iterator[tuple[S, S]]:
    """Neighbours along the axis by value, smaller first, other axes held fixed."""
    for ladder in ladders(saes, axis):
        yield from pairwise(ladder)


def all_pairs(saes: Iterable[S], axis: str) -> Iterator[tuple[S, S]]:
    """Every two SAEs along the axis, smaller first, other axes held fixed."""
    for ladder in ladders(saes, axis):
        yield from combinations(ladder, 2)


def _order(value: AxisValue) -> tuple[bool, Any]:
    return isinstance(value, str), value
