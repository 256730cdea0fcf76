"""What a function declares by its signature: inputs by position, settings by keyword.

What several functions have in common is said once, as a dataclass whose fields are taken apart:
a keyword-only parameter whose default is one is a group of settings, with the values of that
default (`*, schedule: Schedule = Schedule()`); a positional parameter annotated with a subclass of
`InputGroup` is a group of inputs (`both: SAEPair`). Outside, the fields are inputs and settings
like any other; the function gets an instance.
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
    """The base of groups of inputs: dataclasses of inputs that several metrics ask for together."""


@dataclass(frozen=True)
class Signature:
    """A function by what it takes: `call` is the function, with its groups taken apart.

    `given` are the keyword-only parameters that the caller always passes; they are no settings.
    """

    name: str
    call: Callable[..., Any]
    inputs: tuple[str, ...]
    optional: frozenset[str]  # the inputs whose default is None
    help: str
    settings: dict[str, Any] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)  # the settings' annotations
    given: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Group:
    """A parameter that stands for several: what makes it of their values, and these."""

    make: Callable[..., Any]
    parts: list[inspect.Parameter]


def signature_of(
    function: Callable[..., Any],
    noun: str,
    name: str | None = None,
    *,
    given: tuple[str, ...] = (),
) -> Signature:
    """What a function declares; `noun` and `name` say in errors what it is to be.

    Raises CanonError for `*args`, a setting without a default, a name that is declared twice, and
    an input without a default after one that has it.
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
    _check(flat, title, given)
    inputs = [part for part in flat if part.kind is not part.KEYWORD_ONLY]
    by_keyword = [part for part in flat if part.kind is part.KEYWORD_ONLY]
    settings = [part for part in by_keyword if part.name not in given]
    return Signature(
        name=name or function.__name__,
        call=_taken_apart(function, groups, flat) if groups else function,
        inputs=tuple(part.name for part in inputs),
        optional=frozenset(part.name for part in inputs if part.default is None),
        help=inspect.cleandoc(function.__doc__ or ""),
        settings={part.name: part.default for part in settings},
        kinds={part.name: _written(part.annotation) for part in settings},
        given=frozenset(part.name for part in by_keyword) & set(given),
    )


def _group_of(parameter: inspect.Parameter, function: Callable[..., Any]) -> _Group | None:
    """The group that a parameter stands for; None where it is one input or one setting."""
    default, written = parameter.default, parameter.annotation
    if parameter.kind is parameter.KEYWORD_ONLY:
        if not is_dataclass(default) or isinstance(default, type):
            return None
        parts = [_part(one, parameter, getattr(default, one.name)) for one in fields(default)]
        return _Group(lambda **values: replace(default, **values), parts)
    kind = function.__globals__.get(written) if isinstance(written, str) else written
    if not (isinstance(kind, type) and issubclass(kind, InputGroup) and is_dataclass(kind)):
        return None
    defaults = {one.name: one.default for one in fields(kind) if one.default is not MISSING}
    parts = [_part(one, parameter, defaults.get(one.name, parameter.empty)) for one in fields(kind)]
    return _Group(kind, parts)


def _part(one: Field[Any], group: inspect.Parameter, default: Any) -> inspect.Parameter:
    return inspect.Parameter(one.name, group.kind, default=default, annotation=one.type)


def _check(flat: Sequence[inspect.Parameter], title: str, given: tuple[str, ...]) -> None:
    names = [part.name for part in flat]
    for part in flat:
        if names.count(part.name) > 1:
            raise CanonError(f"{title} declares '{part.name}' twice")
        setting = part.kind is part.KEYWORD_ONLY and part.name not in given
        if setting and part.default is part.empty:
            besides = f" but {' and '.join(given)}" if given else ""
            raise CanonError(
                f"{title}: the setting '{part.name}' has no default",
                hint=f"Give every keyword-only parameter{besides} a default.",
            )
    inputs = [part for part in flat if part.kind is not part.KEYWORD_ONLY]
    for before, part in pairwise(inputs):
        if part.default is part.empty and before.default is not before.empty:
            raise CanonError(
                f"{title}: the input '{part.name}' has no default and follows one that has",
                hint="Put it first, or give it a default.",
            )


def _taken_apart(
    function: Callable[..., Any],
    groups: Mapping[str, _Group],
    flat: Sequence[inspect.Parameter],
) -> Callable[..., Any]:
    """The function with each group's fields in the place of the group."""
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


def _written(annotation: Any) -> str:
    """An annotation as its source has it."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
