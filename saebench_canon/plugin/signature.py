"""What a function declares by its signature: inputs by position, settings by keyword.

A keyword-only parameter whose default is a dataclass is a group of settings, said once for several
functions: `*, schedule: Schedule = Schedule()`. Outside, its fields are settings like any other,
with the values of that default; inside, the function gets an instance.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import wraps
from typing import Any

from saebench_canon.errors import CanonError


@dataclass(frozen=True)
class Signature:
    """A function by what it takes: `call` is the function, with the settings of groups taken apart.

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


def signature_of(
    function: Callable[..., Any],
    noun: str,
    name: str | None = None,
    *,
    given: tuple[str, ...] = (),
) -> Signature:
    """What a function declares; `noun` and `name` say in errors what it is to be.

    Raises CanonError for `*args`, a setting without a default, and one that is declared twice.
    """
    parameters = inspect.signature(function).parameters.values()
    title = f"{noun} '{name or function.__name__}'"
    inputs: list[inspect.Parameter] = []
    settings: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    always: set[str] = set()
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise CanonError(f"{title} takes *{parameter.name}; name each parameter")
        if parameter.kind is not parameter.KEYWORD_ONLY:
            inputs.append(parameter)
        elif parameter.name in given:
            always.add(parameter.name)
        elif is_dataclass(parameter.default) and not isinstance(parameter.default, type):
            groups[parameter.name] = parameter.default
            settings += _fields_of(parameter.default)
        else:
            settings.append(parameter)
    _check(settings, title, given)
    return Signature(
        name=name or function.__name__,
        call=_taken_apart(function, groups, settings) if groups else function,
        inputs=tuple(parameter.name for parameter in inputs),
        optional=frozenset(p.name for p in inputs if p.default is None),
        help=inspect.cleandoc(function.__doc__ or ""),
        settings={setting.name: setting.default for setting in settings},
        kinds={setting.name: _written(setting.annotation) for setting in settings},
        given=frozenset(always),
    )


def _fields_of(group: Any) -> Iterator[inspect.Parameter]:
    """The fields of a group as the keyword-only parameters that they stand for."""
    for one in fields(group):
        yield inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(group, one.name),
            annotation=one.type,
        )


def _check(settings: list[inspect.Parameter], title: str, given: tuple[str, ...]) -> None:
    names = [setting.name for setting in settings]
    for setting in settings:
        if setting.default is setting.empty:
            besides = f" but {' and '.join(given)}" if given else ""
            raise CanonError(
                f"{title}: the setting '{setting.name}' has no default",
                hint=f"Give every keyword-only parameter{besides} a default.",
            )
        if names.count(setting.name) > 1 or setting.name in given:
            raise CanonError(f"{title} declares the setting '{setting.name}' twice")


def _taken_apart(
    function: Callable[..., Any], groups: Mapping[str, Any], settings: list[inspect.Parameter]
) -> Callable[..., Any]:
    """The function with each group's fields in the place of the group."""
    inside = {group: [one.name for one in fields(value)] for group, value in groups.items()}

    @wraps(function)
    def call(*inputs: Any, **passed: Any) -> Any:
        instances = {
            group: replace(
                groups[group], **{name: passed.pop(name) for name in names if name in passed}
            )
            for group, names in inside.items()
        }
        return function(*inputs, **passed, **instances)

    signature = inspect.signature(function)
    others = [one for name, one in signature.parameters.items() if name not in groups]
    flat = {one.name: one for one in (*others, *settings)}
    call.__signature__ = signature.replace(parameters=list(flat.values()))  # type: ignore[attr-defined]
    return call


def _written(annotation: Any) -> str:
    """An annotation as its source has it."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
