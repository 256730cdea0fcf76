"""Reading the [data.…] tables of a suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from saebench_canon.errors import CanonError, nearest_file, placed
from saebench_canon.plugin.adapter import Normalisation
from saebench_canon.plugin.data import DataKind, DataSource, DataSpec, Dtype
from saebench_canon.plugin.data_keys import Key, keys_of
from saebench_canon.suite.toml_table import MISSING, Table


def parse_data(name: str, table: Table, root: Path, kinds: Mapping[str, DataKind]) -> DataSpec:
    """The data that a table describes; relative paths are the root's."""
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


def _kind(table: Table, kinds: Mapping[str, DataKind]) -> DataKind:
    """The kind that the table picks, by the one key that it has of them all."""
    picked = [key for key in kinds if key in table.values]
    if len(picked) == 1:
        return kinds[picked[0]]
    if picked:
        raise CanonError(f"names both '{picked[0]}' and '{picked[1]}'", where=table.where,
                         hint="Data is of one kind: give each its own table.")  # fmt: skip
    known = {key for kind in kinds.values() for key in _keys(kind)}
    table.finish(also=[*known, "tokens", "holdout", "dtype", "normalize"])  # a misspelt key first
    for kind in kinds.values():
        for key in sorted(_keys(kind) & table.values.keys()):
            raise CanonError(f"'{key}' goes with '{kind.kind()}', which is not here",
                             where=table.where)  # fmt: skip
    choice = " or ".join(f"'{key}'" for key in kinds)
    raise CanonError(f"needs {choice}: where its activations come from", where=table.where)


def _source(kind: DataKind, table: Table, root: Path) -> DataSource:
    values = {key.name: _value(key, kind, table, root) for key in keys_of(kind)}
    with placed(table.where):
        return kind(**values)


def _value(key: Key, kind: DataKind, table: Table, root: Path) -> Any:
    """The value of a key; what a path names must be there."""
    if key.required and key.name not in table.values:
        raise CanonError(f"names '{kind.kind()}' but no '{key.name}'", where=table.where)
    default = MISSING if key.required else key.default
    if key.words:
        return table.word(key.name, key.words, default)
    if key.type is not Path:
        return table.take(key.name, key.type, default)
    text = table.take(key.name, str, default)
    if not isinstance(text, str):
        return text
    path = root / text
    if not path.exists():
        raise CanonError(f"no file {path}", where=table.where, hint=nearest_file(path))
    return path


def _refuse_keys_of_others(table: Table, kind: DataKind, kinds: Mapping[str, DataKind]) -> None:
    for other in kinds.values():
        for key in _keys(other) - _keys(kind):
            if key in table.values:
                raise CanonError(
                    f"'{key}' goes with '{other.kind()}', not with '{kind.kind()}'",
                    where=table.where,
                )


def _keys(kind: DataKind) -> set[str]:
    """The keys that not every data table has."""
    return {key.name for key in keys_of(kind)} | ({"center"} if kind.centres else set())


def path_keys(kinds: Mapping[str, DataKind]) -> tuple[set[str], set[str]]:
    """The keys whose values are paths, and those whose values may be."""
    keys = {key.name for kind in kinds.values() for key in keys_of(kind) if key.type is Path}
    return keys, {key for kind in kinds.values() for key in kind.names_paths}
