"""Mutated checkpoints of every format end in a clean load or a CanonError, nothing else.

The environment variable CANON_FUZZ says how many cases are tried; `tox -e fuzz` tries thousands.
"""

from __future__ import annotations

import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FORMATS, M
from clone import PLUGINS

from saebench_canon.errors import CanonError
from saebench_canon.plugin.known_formats import KNOWN, OPENAI
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry, load_registry

CASES = int(os.environ.get("CANON_FUZZ", "380"))
EACH = max(1, CASES // len(FORMATS))
ODD = [
    None, True, -1, 0, 0.5, 1e308, 10**9, 2**63, "", "topk", "\ud800", [], {}, [1, 2], {"k": 3},
    float("nan"), float("inf"), "None", M + 1, M - 1,
]  # fmt: skip


@pytest.fixture(scope="module")
def registry() -> Registry:
    modules = [
        PLUGINS / Path(known.folder).name / f"{known.distribution.replace('-', '_')}.py"
        for known in (*KNOWN, OPENAI)
    ]
    if not all(module.is_file() for module in modules):
        pytest.skip("the plugins lie in a clone only")
    return load_registry(modules)


def opened(registry: Registry, path: Path, *, identified: bool = True) -> None:
    """Everything that a run does with a checkpoint before it measures."""
    adapter, ref = registry.adapters["file"], Ref.parse(f"file:{path}")
    description = adapter.describe(ref)
    if identified:  # reads every number; without it, what only loading meets is met
        adapter.identity(ref)
    sae = adapter.load(ref)
    assert (sae.width, sae.d) == (description.width, description.d)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.width))
    if description.calibrated:
        codes = sae.encode(torch.ones(2, sae.d))
        assert bool(torch.isfinite(codes).all())


@pytest.mark.parametrize("form", FORMATS)
def test_a_whole_checkpoint_opens(tmp_path: Path, registry: Registry, form: str) -> None:
    opened(registry, FORMATS[form](tmp_path))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("form", FORMATS)
def test_a_mutated_checkpoint_opens_or_is_refused_in_a_sentence(
    tmp_path: Path, registry: Registry, form: str
) -> None:
    refused: list[str] = []
    for case in range(EACH):
        folder = tmp_path / str(case)
        chance = random.Random(f"{form} {case}")
        path = FORMATS[form](folder)
        done = [mutate(chance, path) for _ in range(chance.choice((1, 1, 1, 2, 4)))]
        try:
            opened(registry, path, identified=case % 2 == 0)
        except CanonError as error:
            refused.append(str(error))
        except Exception as error:
            raise AssertionError(f"{form}, case {case}, {done}: {type(error).__name__}") from error
    assert refused  # else nothing was mutated
    assert all(sentence.strip() for sentence in refused)


@pytest.mark.parametrize(
    "form", [form for form in FORMATS if form not in ("gemma-scope", "openai")]
)
def test_a_value_of_another_type_is_refused_in_words_of_ours(
    tmp_path: Path, registry: Registry, form: str
) -> None:
    """No sentence on a configuration is an error of Python such as `unhashable type: 'list'`."""
    folder = FORMATS[form](tmp_path)
    file = next(folder.glob("*.json"))
    text, adapter, ref = file.read_text(), registry.adapters["file"], Ref.parse(f"file:{folder}")
    for number in range(len(_entries(json.loads(text)))):
        for value in (["standard"], {"a": 1}, 7, True, [], "x", None):
            config = json.loads(text)
            holder, key = _entries(config)[number]
            holder[key] = value
            file.write_text(json.dumps(config))
            told = ""
            try:
                adapter.describe(ref)
            except CanonError as error:
                told = str(error)
            assert "Error:" not in told, f"{key} = {value!r}: {told}"


def mutate(chance: random.Random, path: Path) -> str:
    """One change to one file of the checkpoint; returns what was done."""
    files = sorted(file for file in (path, *path.glob("*")) if file.is_file())
    if not files:
        return "no file left"
    file = chance.choice(files)
    kinds: list[Callable[[random.Random, Path], str]] = [flip, truncate, scribble, empty, remove]
    if file.suffix == ".json":
        kinds = [swap_value, swap_value, swap_value, drop_key, deep, not_utf8, *kinds]
    elif file.suffix == ".safetensors":
        kinds = [header, header, header, *kinds]
    else:
        kinds = [member, member, in_pickle, *kinds]
    kind = chance.choice(kinds)
    return f"{file.name}: {kind(chance, file)}"


def flip(chance: random.Random, file: Path) -> str:
    data = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 3, 20))):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    return "flipped bits"


def truncate(chance: random.Random, file: Path) -> str:
    data = file.read_bytes()
    file.write_bytes(data[: chance.randrange(len(data) + 1)])
    return "truncated"


def scribble(chance: random.Random, file: Path) -> str:
    data = bytearray(file.read_bytes())
    start = chance.randrange(len(data) + 1)
    data[start : start + chance.choice((0, 8))] = chance.randbytes(8)
    file.write_bytes(data)
    return f"scribbled at {start}"


def empty(chance: random.Random, file: Path) -> str:
    file.write_bytes(b"")
    return "emptied"


def remove(chance: random.Random, file: Path) -> str:
    file.unlink()
    return "removed"


def _entries(value: Any) -> list[tuple[Any, Any]]:
    """Every container in JSON data with each of its keys."""
    entries: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        for key in keys:
            entries += [(value, key), *_entries(value[key])]
    return entries


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return {}


def swap_value(chance: random.Random, file: Path) -> str:
    data = _json(file)
    entries = _entries(data)
    if not entries:
        return "nothing to swap"
    holder, key = chance.choice(entries)
    holder[key] = chance.choice(ODD)
    file.write_text(json.dumps(data))
    return f"{key} = {holder[key]!r}"


def drop_key(chance: random.Random, file: Path) -> str:
    data = _json(file)
    entries = [(holder, key) for holder, key in _entries(data) if isinstance(holder, dict)]
    if not entries:
        return "nothing to drop"
    holder, key = chance.choice(entries)
    del holder[key]
    file.write_text(json.dumps(data))
    return f"dropped {key}"


def deep(chance: random.Random, file: Path) -> str:
    file.write_text("[" * 100_000)
    return "nested deeply"


def not_utf8(chance: random.Random, file: Path) -> str:
    file.write_bytes(file.read_bytes() + b"\xff\xfe")
    return "not UTF-8"


def header(chance: random.Random, file: Path) -> str:
    """Another value in a safetensors header, with its length right or wrong."""
    data = file.read_bytes()
    if len(data) < 8:
        return "no header"
    length = struct.unpack("<Q", data[:8])[0]
    try:
        content = json.loads(data[8 : 8 + length])
    except ValueError:
        return "no header"
    entries = _entries(content)
    if not entries:
        return "no header"
    holder, key = chance.choice(entries)
    if chance.random() < 0.3 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    else:
        holder[key] = chance.choice([*ODD, "I8", "F64", "BOOL", [M, 6], [10**9, 10**9]])
    text = json.dumps(content).encode()
    length_written = len(text) if chance.random() < 0.9 else chance.randrange(2**64)
    file.write_bytes(struct.pack("<Q", length_written) + text + data[8 + length :])
    return f"header {key}"


def member(chance: random.Random, file: Path) -> str:
    """A zip archive with one member dropped, renamed, compressed, shortened or made of zeros."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return "no archive"
    if not members:
        return "no member"
    index = chance.randrange(len(members))
    name, data = members[index]
    change = chance.choice(
        ("drop", "rename", "shorten", "bomb", "nan", "zeros", "compress", "twice")
    )
    compression = zipfile.ZIP_STORED
    if change == "drop":
        members.pop(index)
    elif change == "rename":
        members[index] = (name + "x", data)
    elif change == "shorten":
        members[index] = (name, data[: chance.randrange(len(data) + 1)])
    elif change == "bomb":
        members[index] = (name, data + bytes(10**6))
    elif change == "nan":
        members[index] = (name, data[:-4] + struct.pack("<f", float("nan")))
    elif change == "zeros":
        members[index] = (name, bytes(len(data)))
    elif change == "compress":
        compression = zipfile.ZIP_DEFLATED
    else:
        members.append(
            (chance.choice((name, name.upper(), name.replace("enc", "enc2"))), data[::-1])
        )
    with zipfile.ZipFile(file, "w", compression) as archive:
        for filename, content in members:
            archive.writestr(filename, content)
    return f"{change} {name}"


def in_pickle(chance: random.Random, file: Path) -> str:
    """Changed bytes in the pickle of a torch.save archive, or in an array's header."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:
        return "no archive"
    names = [name for name in members if name.endswith((".pkl", ".npy"))]
    if not names:
        return "no pickle"
    name = chance.choice(names)
    data = bytearray(members[name])
    for _ in range(chance.choice((1, 2, 8))):
        if data:
            data[chance.randrange(min(len(data), 4000))] = chance.randrange(256)
    members[name] = bytes(data)
    with zipfile.ZipFile(file, "w") as archive:
        for filename, content in members.items():
            archive.writestr(filename, content)
    return f"bytes of {name}"
