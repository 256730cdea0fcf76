"""Reading a suite file: TOML in, typed values out, every mistake reported before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.registry import Registry
from saebench_canon.suite.data import parse_data, path_keys
from saebench_canon.suite.metrics import (
    parse_gate,
    parse_metric,
    planned_for,
    refuse_shared_labels,
)
from saebench_canon.suite.names import checked_name
from saebench_canon.suite.questions import parse_questions
from saebench_canon.suite.references import parse_reference
from saebench_canon.suite.saes import parse_saes, refuse_too_many, refuse_twins
from saebench_canon.suite.specs import SaeSpec, Suite
from saebench_canon.suite.toml_merge import anchored, apply_settings, merge, title
from saebench_canon.suite.toml_table import TomlTable, checked_table, read_toml

BASES = 32  # suites that may extend one another in a chain


def packaged_suites() -> dict[str, Path]:
    """The suites of the package, by name."""
    folder = Path(str(resources.files("saebench_canon") / "packaged" / "suites"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_suite(name: str) -> Path:
    """The file of a suite, by path or by name."""
    path, known = Path(name), packaged_suites()
    if os.path.isfile(name) or path.suffix.lower() == ".toml" or "/" in name:
        return path
    if name in known:
        return known[name]
    raise CanonError(f"no suite '{name}'", hint=nearest(name, known))


def load_suite(
    path: Path, registry: Registry, *, settings: Iterable[str] = (), file: str | None = None
) -> Suite:
    """The suite of a file, with `extends` and `--set` applied; `file` names it in errors."""
    tables = apply_settings(_with_base(path, (), registry), settings)
    return parse_suite(tables, registry, file=file or str(path), path=path)


def _with_base(path: Path, extending: tuple[Path, ...], registry: Registry) -> dict[str, Any]:
    tables = read_toml(path)
    head = tables.get("suite", {})
    base = tables.pop("extends", None) or (
        head.pop("extends", None) if isinstance(head, dict) else None
    )
    if base is None:
        return tables
    if not isinstance(base, str):
        raise CanonError("'extends' must be a string", where=str(path))
    parent = packaged_suites().get(base, path.parent / base)
    if _real(parent) in extending:
        raise CanonError(f"'{base}' extends itself", where=str(path))
    if len(extending) >= BASES:
        raise CanonError(f"more than {BASES} suites extend one another", where=str(path))
    inherited = _with_base(parent, (*extending, _real(path)), registry)
    if _real(parent.parent) != _real(path.parent):
        inherited = anchored(inherited, _real(parent.parent), *path_keys(registry.data))
    return merge(inherited, tables)


def _real(path: Path) -> Path:
    """The path without links; `Path.resolve` raises a RuntimeError for links in a circle."""
    return Path(os.path.realpath(path))


def parse_suite(
    tables: dict[str, Any], registry: Registry, *, file: str, path: Path | None = None
) -> Suite:
    """The suite that TOML tables describe; every mistake is a CanonError naming file and table."""
    top = TomlTable(tables, file)
    head = TomlTable(top.take("suite", dict, {}), f"{file}, [suite]")
    name = checked_name(head.take("name", str, path.stem if path else "suite"), head.where)
    version = head.take("version", int, 1)
    head.finish()
    root = path.parent if path else Path()
    data = {}
    for key, value in top.take("data", dict, {}).items():
        where = f"{file}, [data.{key}]"
        data[key] = parse_data(
            key, TomlTable(checked_table(value, where), where), root, registry.data
        )
    saes: list[SaeSpec] = []
    for index, table in enumerate(_tables(top, "sae", file)):
        where = f"{file}, [[sae]] '{title(table) or index + 1}'"
        saes.extend(parse_saes(TomlTable(table, where), data, registry, root))
        refuse_too_many(len(saes), file)
    refuse_twins(saes)
    axes = sorted({axis for sae in saes for axis in sae.axes})
    metrics = [
        parse_metric(
            TomlTable(table, f"{file}, [[metric]] '{title(table) or '?'}'"), axes, registry, root
        )
        for table in _tables(top, "metric", file)
    ]
    refuse_shared_labels(metrics)
    gates = [
        parse_gate(TomlTable(table, f"{file}, [[gate]] {index + 1}"), metrics, registry)
        for index, table in enumerate(_tables(top, "gate", file))
    ]
    references = [
        parse_reference(
            TomlTable(table, f"{file}, [[reference]] {index + 1}"), saes, metrics, registry
        )
        for index, table in enumerate(_tables(top, "reference", file))
    ]
    questions = parse_questions(
        top.take("question", dict, {}),
        {spec.metric for spec in metrics},
        registry.questions,
        file=file,
    )
    metrics += planned_for([registry.questions[name] for name in questions], metrics, registry)
    top.finish()
    if not saes:
        raise CanonError("the suite has no [[sae]] table", where=file)
    if not metrics:
        raise CanonError("the suite has no [[metric]] table", where=file)
    return Suite(name, version, path, data, saes, metrics, gates, references, questions)


def _tables(top: TomlTable, key: str, file: str) -> list[dict[str, Any]]:
    return [checked_table(value, f"{file}, [[{key}]]") for value in top.take(key, list, [])]
