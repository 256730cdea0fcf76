"""The JSON schema of suite files, derived from the parsers, the metrics and the trainers.

An example suite with every kind of table is parsed, and what the parsers read from its tables is
recorded: keys, types, choices, defaults. Only what no parser declares is written here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saebench_canon import __version__
from saebench_canon.plugin.data import DataKind
from saebench_canon.plugin.data_keys import Key, keys_of
from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.question import Margin
from saebench_canon.plugin.registry import Registry
from saebench_canon.suite.load import parse_suite
from saebench_canon.suite.names import words_of
from saebench_canon.suite.toml_table import MISSING, noting

Schema = dict[str, Any]

TYPES: dict[type, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array",
    tuple: "array", Path: "string",
}  # fmt: skip
WORDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
VALUE: Schema = {"type": ["string", "number", "boolean"]}  # of an axis
WHOLE = ["sae", "metric"]  # tables that a suite has, unless it is laid over another that has them
EXTENDS: Schema = {"type": "string", "description": "The suite that this one is laid over."}


def suite_schema(registry: Registry) -> Schema:
    """The schema of suite files under a registry: its metrics and trainers are the known ones."""
    keys_read, data_keys = _keys_read(registry), _data(registry)
    others = {key: schema for key, schema in keys_read["data"].items() if key not in data_keys}
    keys_read["data"] = others | data_keys
    tables = {kind: _table(keys) for kind, keys in keys_read.items()}
    tables["suite"]["properties"]["extends"] = EXTENDS
    tables["data"]["allOf"] = [_keys_of_kind(kind) for kind in registry.data.values()]
    tables["data"]["properties"] |= _names_of_kinds(registry)
    sae, metric = tables["sae"]["properties"], tables["metric"]["properties"]
    sae["train"] = _train(registry)
    sae["axes"] = {
        "type": "object",
        "additionalProperties": {**_list(VALUE), "minItems": 1, "uniqueItems": True},
    }
    sae["exclude"] = _list({"type": "object", "additionalProperties": VALUE})
    metric["name"] = {"enum": list(registry.metrics)}
    metric["where"] = {
        "type": "object",
        "additionalProperties": {"anyOf": [VALUE, {**_list(VALUE), "minItems": 1}]},
    }
    metric["seeds"] |= {"minItems": 1, "uniqueItems": True}
    tables["metric"]["allOf"] = [
        _settings_of(known_metric) for known_metric in registry.metrics.values()
    ]
    tables["reference"]["properties"]["values"] = {
        "type": "object",
        "additionalProperties": {"type": "number"},
    }
    tables["reference"]["properties"]["where"] = metric["where"]
    top: Schema = {"extends": EXTENDS}
    for key, schema in keys_read["top"].items():
        table = {"$ref": f"#/$defs/{key}"}
        named = {"type": "object", "additionalProperties": table}
        top[key] = _list(table) if schema["type"] == "array" else table if key == "suite" else named
    del tables["top"]
    tables.pop("question", None)
    top["question"] = _questions(registry)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"A suite of saebench-canon {__version__}",
        "type": "object",
        "properties": top,
        "additionalProperties": False,
        "if": {"not": {"anyOf": [
            {"required": ["extends"]},
            {"required": ["suite"], "properties": {"suite": {"required": ["extends"]}}},
        ]}},
        "then": {
            "required": WHOLE,
            "properties": {
                kind: {"items": {"required": tables[kind].pop("required")}} for kind in WHOLE
            },
        },
        "$defs": tables,
    }  # fmt: skip


def _keys_read(registry: Registry) -> dict[str, dict[str, Schema]]:
    """The keys that parsers read from each kind of table."""
    keys_read: dict[str, dict[str, Schema]] = {}
    with _recorded_reads() as reads:
        parse_suite(_example(registry), registry, file="example")
    first: dict[tuple[str, str], Any] = {}
    for where, key, kind, value, choices in reads:
        default = first.setdefault((where, key), value)  # of two reads, the first counts
        table = re.search(r"\[+(\w+)", where)
        schema: Schema = {"enum": list(choices)} if choices else {"type": TYPES[kind]}
        if isinstance(default, list) and default:
            schema["items"] = {"type": TYPES[type(default[0])]}
        if default is MISSING:
            schema["required"] = True  # taken out by _table
        elif default not in (None, {}, []):
            schema["default"] = default
        keys_read.setdefault(table[1] if table else "top", {})[key] = schema
    for name in ("label", "over"):  # their defaults depend on the metric
        keys_read["metric"][name].pop("default", None)
    keys_read["suite"]["name"].pop("default", None)  # the file's name
    return keys_read


@contextmanager
def _recorded_reads() -> Iterator[list[tuple[str, str, type, Any, tuple[str, ...]]]]:
    """What parsers read inside the block."""
    reads: list[tuple[str, str, type, Any, tuple[str, ...]]] = []
    token = noting.set(lambda *read: reads.append(read))
    try:
        yield reads
    finally:
        noting.reset(token)


def _example(registry: Registry) -> dict[str, Any]:
    """A suite with every kind of table."""
    arch, trainer = next(iter(registry.trainers.items()))
    metric = next(metric for metric in registry.metrics.values() if metric.of == "sae")
    score = f"{metric.name}.{metric.scores[0].name}"
    source = {"model": "packaged:tiny-lm", "hook": "blocks.0.hook_resid_pre",
              "text": "packaged:python-docs", "holdout": 0.1, "normalize": "none"}  # fmt: skip
    return {
        "suite": {},
        "data": {"it": source},
        "sae": [{
            "name": "w{width}", "data": "it", "axes": {"width": [8, 16]},
            "train": {"arch": arch, **({"k": 2} if "k" in trainer.settings else {})},
        }],
        "metric": [{"name": metric.name}],
        "gate": [{"score": score, "require": ">= 0"}],
        "reference": [{"score": score, "axis": "width", "values": {"8": 1.0}, "source": "nobody"}],
    }  # fmt: skip


def _table(keys: Mapping[str, Schema]) -> Schema:
    """A table of these keys and no others."""
    needed = [key for key, schema in keys.items() if schema.get("required") is True]
    bare = {
        key: {name: value for name, value in schema.items() if name != "required"}
        for key, schema in keys.items()
    }
    table = {"type": "object", "properties": bare, "additionalProperties": False}
    return {**table, "required": needed} if needed else table


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _settings_of(metric: Metric) -> Schema:
    """The settings that go with a metric's name."""
    settings = {
        name: {"type": "string"}
        if name in metric.sae_settings
        else _setting(default, metric.kinds.get(name))
        for name, default in metric.settings.items()
    }
    return {
        "if": {"required": ["name"], "properties": {"name": {"const": metric.name}}},
        "then": {
            "properties": {
                "name": {"description": metric.help.partition("\n")[0]},
                "settings": _table(settings),
            }
        },
    }


def _questions(registry: Registry) -> Schema:
    """Every question with its margins."""
    return _table(
        {
            question.name: {
                **_table({margin.name: _margin(margin) for margin in question.margins}),
                "description": question.help,
            }
            for question in registry.questions.values()
        }
    )


def _margin(margin: Margin) -> Schema:
    low, high = margin.between
    return {
        **_setting(margin.default),
        "description": margin.meaning,
        **({"minimum": low} if math.isfinite(low) else {}),
        **({"maximum": high} if math.isfinite(high) else {}),
    }


def _data(registry: Registry) -> Schema:
    """Every key that a kind of data has; where kinds differ about a key, it is left open."""
    shared: Schema = {}
    for kind in registry.data.values():
        for key in keys_of(kind):
            _agree(shared, key.name, _key(key))
    return shared


def _keys_of_kind(kind: DataKind) -> Schema:
    """The keys that go with what picks a kind of data."""
    properties = {key.name: _key(key) for key in keys_of(kind)}
    picked: Schema = {"required": [kind.kind()]}
    if kind.named is not None:
        picked["properties"] = {kind.kind(): {"const": kind.named}}
    described = (kind.__doc__ or "").partition("\n")[0]
    properties[kind.kind()] = {"description": described}
    return {"if": picked, "then": {"properties": properties}}


def _names_of_kinds(registry: Registry) -> Schema:
    """The keys whose value picks one of several kinds of data, with these values."""
    names: dict[str, list[str]] = {}
    for kind in registry.data.values():
        if kind.named is not None:
            names.setdefault(kind.kind(), []).append(kind.named)
    return {key: {"enum": values} for key, values in names.items()}


def _key(key: Key) -> Schema:
    schema: Schema = {"enum": list(key.words)} if key.words else {"type": TYPES[key.type]}
    if not key.required and key.default is not None:
        schema["default"] = str(key.default) if key.type is Path else key.default
    return schema


def _agree(shared: Schema, key: str, schema: Schema) -> None:
    """Merge a key's schema into the shared ones; keywords in which two differ are dropped."""
    common = shared.setdefault(key, dict(schema))
    for keyword in [word for word in common if common[word] != schema.get(word)]:
        del common[keyword]


def _train(registry: Registry) -> Schema:
    """The settings of all trainers, and one table for each trainer."""
    shared: Schema = {
        "arch": {"enum": list(registry.trainers)},
        "width": {"type": "integer", "minimum": 1},
        "seed": {"type": "integer", "default": 0},
    }
    tables: Schema = {}
    for name, trainer in registry.trainers.items():
        settings = {key: _setting(default) for key, default in trainer.settings.items()}
        tables[name] = {**_table(settings), "description": trainer.help.partition("\n")[0]}
        for key, schema in settings.items():
            _agree(shared, key, schema)
    return _table({**shared, **tables})


def _setting(default: Any, annotation: str | None = None) -> Schema:
    """The schema of a setting: of its default's type or, where that is None, its annotation's."""
    if choices := words_of(annotation):
        return {"enum": list(choices), **({} if default is None else {"default": default})}
    if default is not None:
        value = list(default) if isinstance(default, tuple) else default
        return {"type": TYPES[type(default)], "default": value}
    words = [word.strip() for word in (annotation or "").split("|")]
    types = [WORDS[word] for word in words if word in WORDS]
    return {"type": types} if types else {}
