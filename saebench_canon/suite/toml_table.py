"""Reading a TOML table key by key: typed values or an error that names file, table and key."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, get_args

from saebench_canon.errors import CanonError, nearest
from saebench_canon.suite.toml_limits import BYTES, parse_toml

T = TypeVar("T")
MISSING = object()
TYPE_WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false",
              dict: "a table", list: "a list", tuple: "a list"}  # fmt: skip

# Called with each key that a parser reads: where, key, type, default or MISSING, choices.
Noting = Callable[[str, str, type, Any, tuple[str, ...]], None]
noting: ContextVar[Noting | None] = ContextVar("noting", default=None)


class TomlTable:
    """One TOML table and its place in the file; `finish` raises CanonError for unread keys."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where
        self._known: set[str] = set()

    def take(self, key: str, kind: type[T], default: Any = MISSING) -> T:
        """The value of a key, with its type checked; the default if the key is absent."""
        self._note(key, kind, default)
        if key not in self.values:
            if default is MISSING:
                raise CanonError(f"'{key}' is missing", where=self.where)
            return default  # type: ignore[no-any-return]
        value = self.values[key]
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise CanonError(f"'{key}' must be {TYPE_WORDS[kind]}, got {value!r}", where=self.where)
        return value

    def optional(self, key: str, kind: type[T]) -> T | None:
        """The value of a key, or None if it is absent."""
        return self.take(key, kind, default=None)

    def choice(self, key: str, literal: Any, default: str) -> str:
        """One of the strings of a Literal."""
        return self.word(key, get_args(literal), default)

    def word(self, key: str, words: tuple[str, ...], default: Any = MISSING) -> str:
        """One of these strings; the default may be another value."""
        value = self.take(key, str, default)
        self._note(key, str, default, words)
        if key in self.values and value not in words:
            raise CanonError(
                f"unknown {key} '{value}'", where=self.where, hint=nearest(value, words)
            )
        return value

    def _note(self, key: str, kind: type, default: Any, choices: tuple[str, ...] = ()) -> None:
        self._known.add(key)
        if (note := noting.get()) is not None:
            note(self.where, key, kind, default, choices)

    def finish(self, also: Iterable[str] = ()) -> None:
        """Raise CanonError for a key that was not read, with the nearest known keys."""
        known = self._known | set(also)
        for key in self.values:
            if key not in known:
                raise CanonError(f"unknown key '{key}'", where=self.where, hint=nearest(key, known))


def checked_table(value: Any, where: str) -> dict[str, Any]:
    """The value; raises CanonError if it is not a table."""
    if not isinstance(value, dict):
        raise CanonError(f"{value!r} is not a table", where=where)
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise CanonError(f"{path} is not a file")  # a device or a pipe may have no end
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(BYTES + 1)
    except FileNotFoundError:
        suites = [file.name for file in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise CanonError(f"no suite file {path}", hint=nearest(path.name, suites)) from None
    except (UnicodeDecodeError, OSError) as error:
        raise CanonError(f"{path} cannot be read as text: {error}") from None
    try:
        return parse_toml(text, str(path))
    except tomllib.TOMLDecodeError as error:
        raise CanonError(f"the file is not valid TOML: {error}", where=str(path)) from None
