"""What a function declares by its signature: inputs by position, settings by keyword.

Functions share parameters as dataclasses. A keyword-only parameter whose default is a dataclass
instance is a group of settings, with these defaults (`*, schedule: Schedule = Schedule()`). A
positional parameter annotated with a subclass of `InputGroup` is a group of inputs
(`both: SAEPair`). Suites see each field as an input or a setting; the function gets an instance.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from functools import wraps
from itertools import pairwise
from typing import Any

from saebench_canon.errors import CanonError


class InputGroup:
    """The base of groups of inputs: dataclasses of inputs that several metrics share."""


@dataclass(frozen=True)
class Signature:
    """The parameters of a function; `call` is the function with the fields of groups as parameters.

    `always_passed` are keyword-only parameters that are not settings: the caller sets them.
    """

    name: str
    call: Callable[..., Any]
    inputs: tuple[str, ...]
    optional: frozenset[str]  # the inputs whose default is None
    help: str
    settings: dict[str, Any] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)  # the settings' annotations
    always_passed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Group:
    """A parameter that stands for several: how to make it from their values, and these."""

    make: Callable[..., Any]
    parts: list[inspect.Parameter]


def signature_of(
    function: Callable[..., Any],
    noun: str,
    name: str | None = None,
    *,
    always_passed: tuple[str, ...] = (),
) -> Signature:
    """What a function declares; `noun` and `name` are its name in errors.

    Raises CanonError for `*args`, a setting without a default, a name that is declared twice, and
    an input without a default after one with a default.
    """
    title = f"{noun} '{name or function.__name__}'"
    groups: dict[str, _Group] = {}
    flat: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise CanonError(f"{title} takes *{parameter.name}; name each parameter")
        group = _group_of(parameter, function)
        if group is not None:
            groups[parameter.name] = group
        flat += [parameter] if group is None else group.parts
    _check(flat, title, always_passed)
    inputs = [part for part in flat if part.kind is not part.KEYWORD_ONLY]
    by_keyword = [part for part in flat if part.kind is part.KEYWORD_ONLY]
    settings = [part for part in by_keyword if part.name not in always_passed]
    return Signature(
        name=name or function.__name__,
        call=_ungrouped(function, groups, flat) if groups else function,
        inputs=tuple(part.name for part in inputs),
        optional=frozenset(part.name for part in inputs if part.default is None),
        help=inspect.cleandoc(function.__doc__ or ""),
        settings={part.name: part.default for part in settings},
        kinds={part.name: _source_of(part.annotation) for part in settings},
        always_passed=frozenset(part.name for part in by_keyword) & set(always_passed),
    )


def _group_of(parameter: inspect.Parameter, function: Callable[..., Any]) -> _Group | None:
    """The group that a parameter stands for; None if it is a single input or setting."""
    default, annotation = parameter.default, parameter.annotation
    if parameter.kind is parameter.KEYWORD_ONLY:
        if not is_dataclass(default) or isinstance(default, type):
            return None
        parts = [_part(entry, parameter, getattr(default, entry.name)) for entry in fields(default)]
        return _Group(lambda **values: replace(default, **values), parts)
    kind = annotation
    if isinstance(annotation, str):
        kind = function.__globals__.get(annotation)
    if not (isinstance(kind, type) and issubclass(kind, InputGroup) and is_dataclass(kind)):
        return None
    defaults = {entry.name: entry.default for entry in fields(kind)}
    defaults = {name: value for name, value in defaults.items() if value is not MISSING}
    parts = [
        _part(entry, parameter, defaults.get(entry.name, parameter.empty)) for entry in fields(kind)
    ]
    return _Group(kind, parts)


def _part(entry: Field[Any], group: inspect.Parameter, default: Any) -> inspect.Parameter:
    return inspect.Parameter(entry.name, group.kind, default=default, annotation=entry.type)


def _check(flat: Sequence[inspect.Parameter], title: str, always_passed: tuple[str, ...]) -> None:
    names = [part.name for part in flat]
    for part in flat:
        if names.count(part.name) > 1:
            raise CanonError(f"{title} declares '{part.name}' twice")
        setting = part.kind is part.KEYWORD_ONLY and part.name not in always_passed
        if setting and part.default is part.empty:
            besides = f" but {' and '.join(always_passed)}" if always_passed else ""
            raise CanonError(
                f"{title}: the setting '{part.name}' has no default",
                hint=f"Give every keyword-only parameter{besides} a default.",
            )
    inputs = [part for part in flat if part.kind is not part.KEYWORD_ONLY]
    for before, part in pairwise(inputs):
        if part.default is part.empty and before.default is not before.empty:
            raise CanonError(
                f"{title}: the input '{part.name}' has no default, but the input before it does",
                hint="Move it forward, or give it a default.",
            )


def _ungrouped(
    function: Callable[..., Any],
    groups: Mapping[str, _Group],
    flat: Sequence[inspect.Parameter],
) -> Callable[..., Any]:
    """The function with the fields of each group as parameters."""
    inside = inspect.signature(function)
    outside = inside.replace(parameters=flat)

    @wraps(function)
    def call(*inputs: Any, **settings: Any) -> Any:
        passed = outside.bind(*inputs, **settings).arguments
        arguments: OrderedDict[str, Any] = OrderedDict()
        for name in inside.parameters:
            if name in groups:
                parts = (part.name for part in groups[name].parts)
                values = {part: passed[part] for part in parts if part in passed}
                arguments[name] = groups[name].make(**values)
            elif name in passed:
                arguments[name] = passed[name]
        bound = inspect.BoundArguments(inside, arguments)
        return function(*bound.args, **bound.kwargs)

    call.__signature__ = outside  # type: ignore[attr-defined]
    return call


def _source_of(annotation: Any) -> str:
    """An annotation as its source has it."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
