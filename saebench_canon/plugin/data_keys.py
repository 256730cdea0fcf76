"""The keys of a kind of data: its fields, for reading suites and for the JSON schema."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from saebench_canon.errors import CanonError
from saebench_canon.plugin.data import DataKind, DataSource, DataSpec

PLAIN = (str, int, float, bool, Path)


@dataclass(frozen=True)
class Key:
    """A key of a kind's tables: its type, and its default and its words if it has them."""

    name: str
    type: type
    default: Any = MISSING
    words: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether every table of the kind has it."""
        return self.default is MISSING


def keys_of(kind: DataKind) -> tuple[Key, ...]:
    """The keys of a kind of data; the first names the kind.

    Raises CanonError for a field of a type that TOML lacks, or whose name is already in use.
    """
    if not fields(kind):
        raise CanonError(
            f"the kind of data {kind.__name__} has no fields",
            hint="Write @dataclass(frozen=True) above the class; its first field names the kind.",
        )
    try:
        hints = get_type_hints(kind)
    except NameError as error:
        raise CanonError(
            f"{_named(kind)}: {error}", hint="Import it in the module of the class."
        ) from None
    return tuple(_key(kind, field.name, hints[field.name], field.default) for field in fields(kind))


def _key(kind: DataKind, name: str, hint: Any, default: Any) -> Key:
    if name in {field.name for field in fields(DataSpec)}:
        raise CanonError(f"{_named(kind)}: '{name}' is already a key of every data table")
    if hasattr(DataSource, name):
        raise CanonError(f"{_named(kind)}: '{name}' is a method, so it cannot be a key")
    either = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    types = [part for part in either if part is not NoneType]
    words = get_args(types[0]) if get_origin(types[0]) is Literal else ()
    if len(types) == 1 and words and all(isinstance(word, str) for word in words):
        return Key(name, str, default, words)
    if len(types) != 1 or types[0] not in PLAIN:
        raise CanonError(
            f"{_named(kind)}: the key '{name}' is of the type {hint}",
            hint="Use str, int, float, bool, Path, or a Literal of strings.",
        )
    return Key(name, types[0], default)


def _named(kind: DataKind) -> str:
    return f"the kind of data '{kind.kind()}'"
