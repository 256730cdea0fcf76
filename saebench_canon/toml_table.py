"""Reading a TOML table key by key: typed values or an error that names file, table and key."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from saebench_canon.errors import CanonError, nearest

T = TypeVar("T")
_MISSING = object()
_WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false",
          dict: "a table", list: "a list"}  # fmt: skip


class Table:
    """One TOML table and where it stands; `finish` refuses the keys that nobody asked for."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where
        self._asked: set[str] = set()

    def take(self, key: str, kind: type[T], default: Any = _MISSING) -> T:
        """The value of a key, checked; the default stands where the key is absent."""
        self._asked.add(key)
        if key not in self.values:
            if default is _MISSING:
                raise CanonError(f"'{key}' is missing", where=self.where)
            return default  # type: ignore[no-any-return]
        value = self.values[key]
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise CanonError(f"'{key}' must be {_WORDS[kind]}, not {value!r}", where=self.where)
        return value

    def optional(self, key: str, kind: type[T]) -> T | None:
        """The value of a key, or None where it is absent."""
        return self.take(key, kind, default=None)

    def choice(self, key: str, literal: Any, default: str) -> str:
        """One of the strings of a Literal."""
        value = self.take(key, str, default)
        if value not in get_args(literal):
            raise CanonError(
                f"'{key}' is '{value}'", where=self.where, hint=nearest(value, get_args(literal))
            )
        return value

    def finish(self, also: Iterable[str] = ()) -> None:
        """Refuse keys that were never asked for, naming the nearest that exist."""
        known = self._asked | set(also)
        for key in self.values:
            if key not in known:
                raise CanonError(f"unknown key '{key}'", where=self.where, hint=nearest(key, known))


def a_table(value: Any, where: str) -> dict[str, Any]:
    """The value, which must be a table."""
    if not isinstance(value, dict):
        raise CanonError("must be a table", where=where)
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = [each.name for each in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise CanonError(f"no suite file {path}", hint=nearest(path.name, beside)) from None
    except (UnicodeDecodeError, IsADirectoryError, PermissionError) as error:
        raise CanonError(f"{path} cannot be read as text: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise CanonError(f"not valid TOML: {error}", where=str(path)) from None


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A suite over the one it extends: tables merge by name, other values are replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(old, value)
        elif isinstance(old, list) and isinstance(value, list) and _named(old) and _named(value):
            merged[key] = _merge_named(old, value)
        else:
            merged[key] = value
    return merged


def _named(tables: list[Any]) -> bool:
    return bool(tables) and all(isinstance(table, dict) for table in tables)


def title(table: dict[str, Any]) -> Any:
    """What a table of a list goes by: its label, its name, or its score."""
    return table.get("label", table.get("name", table.get("score")))


def _merge_named(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    merged = {title(table): table for table in old}
    for table in new:
        merged[title(table)] = merge(merged.get(title(table), {}), table)
    return list(merged.values())


def apply_settings(tables: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """The tables with `--set TABLE.KEY=VALUE` applied, such as `data.owt.tokens=1000`.

    In `sae` and `metric` the next word may name one table (by name or label); without it all of
    them are set.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or len(keys) < 2 or keys[0] not in ("suite", "data", "sae", "metric", "gate"):
            raise CanonError(
                f"'{setting}' is not TABLE.KEY=VALUE", where="--set",
                hint="For example data.owt.tokens=1000 or metric.stitching.settings.threshold=0.5.",
            )  # fmt: skip
        tables = merge(tables, _setting_tables(tables, keys, _value(text.strip())))
    return tables


def _setting_tables(tables: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    head, rest = keys[0], keys[1:]
    if head not in ("sae", "metric", "gate"):
        if head == "data" and rest[0] not in tables.get("data", {}):
            raise CanonError(f"no data table '{rest[0]}'", where="--set",
                             hint=nearest(rest[0], tables.get("data", {})))  # fmt: skip
        return {head: _nested(rest, value)}
    titles = [title(table) for table in tables.get(head, [])]
    chosen = titles
    for words in (1, 2):  # a gate goes by its score, such as fidelity.l0
        if ".".join(rest[:words]) in titles and len(rest) > words:
            chosen, rest = [".".join(rest[:words])], rest[words:]
    key = {"sae": "name", "metric": "label", "gate": "score"}[head]
    return {
        head: [
            ({"name": table.get("name")} if head == "metric" else {})
            | {key: title(table)}
            | _nested(rest, value)
            for table in tables.get(head, [])
            if title(table) in chosen
        ]
    }


def _nested(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nested(keys[1:], value)}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
