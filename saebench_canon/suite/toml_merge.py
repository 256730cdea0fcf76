"""Laying one suite over another (`extends`) and single values over a suite (`--set`)."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

from saebench_canon.errors import CanonError, nearest
from saebench_canon.suite.toml_limits import check_values, parse_toml

NAMED = ("sae", "metric", "gate")
HEADS = ("suite", "data", "question", *NAMED)  # the tables that --set reaches
KEYS = {
    "sae": ("name", "uri", "train", "data", "axes", "exclude", "dtype"),
    "metric": ("name", "label", "over", "peers", "where", "settings", "seeds"),
    "gate": ("score", "require"),
}


def title(table: dict[str, Any]) -> Any:
    """The name of a table in a list: its label, its name, or its score."""
    return table.get("label", table.get("name", table.get("score")))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A suite over the one it extends.

    Tables merge key by key, [[sae]] and [[metric]] tables by name, [[gate]] and
    [[reference]] tables are added; any other value is replaced.
    """
    merged = _laid_over(base, over)
    for key in ("sae", "metric"):
        if isinstance(base.get(key), list) and isinstance(over.get(key), list):
            merged[key] = _by_title(base[key], over[key])
    for key in ("gate", "reference"):
        if isinstance(base.get(key), list) and isinstance(over.get(key), list):
            merged[key] = [*base[key], *over[key]]
    return merged


def _laid_over(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _laid_over(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _by_title(base: list[Any], over: list[Any]) -> list[Any]:
    merged = list(base)
    for table in over:
        matches = [
            index
            for index, old in enumerate(base)
            if isinstance(old, dict) and isinstance(table, dict) and title(old) == title(table)
        ]
        if matches:
            merged[matches[0]] = _laid_over(merged[matches[0]], table)
        else:
            merged.append(table)
    return merged


def anchored(
    tables: dict[str, Any], folder: Path, paths: Collection[str], maybe: Collection[str]
) -> dict[str, Any]:
    """The tables with relative paths made absolute, from the folder of their file.

    `paths` are the keys of data tables that hold paths, `maybe` the keys that hold a path or a
    name.
    """
    tables = deepcopy(tables)
    for data in _dicts(tables.get("data", {})):
        for key in (*paths, *maybe):
            if isinstance(data.get(key), str) and (key in paths or (folder / data[key]).exists()):
                data[key] = str(folder / data[key])
    for sae in tables.get("sae", []) if isinstance(tables.get("sae"), list) else []:
        uri = sae.get("uri") if isinstance(sae, dict) else None
        if isinstance(uri, str):
            scheme, colon, path = uri.partition(":")
            if colon and not path.startswith("//"):
                sae["uri"] = f"{scheme}:{folder / path}"
            elif not colon:
                sae["uri"] = str(folder / uri)
    for metric in tables.get("metric", []) if isinstance(tables.get("metric"), list) else []:
        settings = metric.get("settings") if isinstance(metric, dict) else None
        if not isinstance(settings, dict):
            continue
        for name, value in settings.items():
            scheme, colon, path = value.partition(":") if isinstance(value, str) else ("", "", "")
            if (
                colon and not path.startswith("//") and (folder / path).exists()
            ):  # an SAE that the setting names
                settings[name] = f"{scheme}:{folder / path}"
    return tables


def _dicts(values: Any) -> list[dict[str, Any]]:
    entries = values.values() if isinstance(values, dict) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def apply_settings(tables: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """The tables with `--set TABLE.KEY=VALUE` applied, such as `data.owt.tokens=1000`.

    In `sae`, `metric` and `gate` the next word may name one table (by name, label or score);
    without it all of them are set.
    """
    tables = deepcopy(tables)
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or len(keys) < 2 or keys[0] not in HEADS:
            raise CanonError(
                f"'{setting}' is not TABLE.KEY=VALUE",
                where="--set",
                hint="For example data.owt.tokens=1000 or metric.NAME.settings.KEY=0.5.",
            )
        _set(tables, keys, _value(text.strip()))
    return tables


def _set(tables: dict[str, Any], keys: list[str], value: Any) -> None:
    head, rest = keys[0], keys[1:]
    if head in NAMED:
        for table, path in _chosen(tables.get(head), head, rest):
            _put(table, path, value)
        return
    if head == "data":
        known = tables.get("data")
        if not isinstance(known, dict) or rest[0] not in known:
            hint = nearest(rest[0], known if isinstance(known, dict) else ())
            raise CanonError(f"no data table '{rest[0]}'", where="--set", hint=hint)
    _put(tables, keys, value)


def _chosen(entries: Any, head: str, rest: list[str]) -> list[tuple[dict[str, Any], list[str]]]:
    """The tables of a list that a setting means, and the keys within them."""
    listed = entries if isinstance(entries, list) else []
    tables = [entry for entry in listed if isinstance(entry, dict)]
    titles = [str(title(table)) for table in tables]
    for words in range(len(rest) - 1, 0, -1):  # the name of a gate is its score, such as NAME.l0
        name = ".".join(rest[:words])
        if name in titles:
            return [(table, rest[words:]) for table in tables if str(title(table)) == name]
    if rest[0] not in KEYS[head]:
        known = [*titles, *KEYS[head]]
        raise CanonError(
            f"no {head} table or key '{rest[0]}'", where="--set", hint=nearest(rest[0], known)
        )
    return [(table, rest) for table in tables]


def _put(table: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            raise CanonError(f"'{key}' is not a table", where="--set")
        table = inner
    table[keys[-1]] = value


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}", "--set")["value"]
    except tomllib.TOMLDecodeError:
        check_values({"value": text}, "--set")
        return text
