"""Reading the [data.…] tables of a suite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from saebench_canon.errors import CanonError, nearest_file, placed
from saebench_canon.plugin.adapter import Normalisation
from saebench_canon.plugin.data import DataKind, DataSource, DataSpec, Dtype
from saebench_canon.plugin.data_keys import Key, keys_of
from saebench_canon.saes.weights.regular_file import refuse_special
from saebench_canon.suite.toml_table import MISSING, TomlTable


def parse_data(name: str, table: TomlTable, root: Path, kinds: Mapping[str, DataKind]) -> DataSpec:
    """The data that a table describes; relative paths start at `root`."""
    kind = _kind(table, kinds)
    spec = DataSpec(
        name=name,
        where=table.where,
        source=_source(kind, table, root),
        tokens=table.optional("tokens", int),
        holdout=table.optional("holdout", float),
        dtype=cast(Dtype, table.choice("dtype", Dtype, DataSpec.dtype)),
        center=table.optional("center", bool) if kind.centres else None,
        normalize=cast(Normalisation, table.choice("normalize", Normalisation, "none"))
        if table.optional("normalize", str) is not None
        else None,
        root=root,
    )
    _refuse_keys_of_others(table, kind, kinds)
    table.finish()
    if spec.holdout is not None and not 0 < spec.holdout < 1:
        raise CanonError(
            f"'holdout' must be a share of documents between 0 and 1, got {spec.holdout}",
            where=table.where,
        )
    if spec.tokens is not None and spec.tokens < 2:
        raise CanonError(f"'tokens' must be at least 2, got {spec.tokens}", where=table.where)
    return spec


def _kind(table: TomlTable, kinds: Mapping[str, DataKind]) -> DataKind:
    """The kind of data, by the one key of the table that names a kind."""
    keys = list(dict.fromkeys(kind.kind() for kind in kinds.values()))
    picked = _picked([key for key in keys if key in table.values], table, kinds)
    if len(picked) == 1:
        return _named(picked[0], table, kinds)
    if picked:
        raise CanonError(
            f"a data table has either '{picked[0]}' or '{picked[1]}', not both",
            where=table.where, hint="Write a table for each.",
        )  # fmt: skip
    known = {key for kind in kinds.values() for key in _keys(kind)}
    table.finish(also=[*known, "tokens", "holdout", "dtype", "normalize"])  # a misspelt key first
    for kind in kinds.values():
        for key in sorted(_keys(kind) & table.values.keys()):
            raise CanonError(f"'{key}' needs '{kind.kind()}', which is missing",
                             where=table.where)  # fmt: skip
    choice = " or ".join(f"'{key}'" for key in keys)
    raise CanonError(
        f"a data table needs {choice}, where its activations come from", where=table.where
    )


def _picked(keys: list[str], table: TomlTable, kinds: Mapping[str, DataKind]) -> list[str]:
    """Of the kinds' keys in a table, the one whose kind has all others as its own keys, if any."""
    for key in keys if len(keys) > 1 else ():
        named = [kind for kind in kinds.values() if kind.kind() == key]
        if any(
            kind.named in (None, table.values[key]) and {*keys} <= _keys(kind) for kind in named
        ):
            return [key]
    return keys


def _named(key: str, table: TomlTable, kinds: Mapping[str, DataKind]) -> DataKind:
    """The kind of data of a key; where kinds share it, the one that the key's value names."""
    sharing = {kind.named: kind for kind in kinds.values() if kind.kind() == key}
    if set(sharing) == {None}:
        return sharing[None]
    return sharing[table.word(key, tuple(name for name in sharing if name is not None))]


def _source(kind: DataKind, table: TomlTable, root: Path) -> DataSource:
    values = {key.name: _value(key, kind, table, root) for key in keys_of(kind)}
    with placed(table.where):
        return kind(**values)


def _value(key: Key, kind: DataKind, table: TomlTable, root: Path) -> Any:
    """The value of a key; a path must exist."""
    if key.required and key.name not in table.values:
        raise CanonError(f"'{key.name}' is missing, which '{kind.kind()}' needs", where=table.where)
    default = MISSING if key.required else key.default
    if key.words:
        return table.word(key.name, key.words, default)
    if key.type is not Path:
        value: Any = table.take(key.name, key.type, default)
        if isinstance(value, float) and not math.isfinite(value):
            raise CanonError(f"'{key.name}' must be finite, got {value}", where=table.where)
        return value
    text = table.take(key.name, str, default)
    if not isinstance(text, str):
        return text
    path = root / text
    refuse_special(path, where=table.where)
    if not path.exists():
        raise CanonError(
            f"the file {path} does not exist", where=table.where, hint=nearest_file(path)
        )
    return path


def _refuse_keys_of_others(table: TomlTable, kind: DataKind, kinds: Mapping[str, DataKind]) -> None:
    for other in kinds.values():
        for key in _keys(other) - _keys(kind):
            if key in table.values:
                raise CanonError(
                    f"'{key}' is a key of '{other.title()}', not of '{kind.title()}'",
                    where=table.where,
                )


def _keys(kind: DataKind) -> set[str]:
    """The keys of this kind of data only."""
    return {key.name for key in keys_of(kind)} | ({"center"} if kind.centres else set())


def path_keys(kinds: Mapping[str, DataKind]) -> tuple[set[str], set[str]]:
    """The keys whose values are paths, and the keys whose values may be paths."""
    keys = {key.name for kind in kinds.values() for key in keys_of(kind) if key.type is Path}
    return keys, {key for kind in kinds.values() for key in kind.names_paths}
