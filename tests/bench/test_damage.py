"""Damage on disk: a changed bit changes no score, and nothing has a name before it is on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.plugin.record import Record
from saebench_canon.plugin.registry import load_registry

REGISTRY = load_registry()
TRAINED = """
[data.planted]
file = "acts.safetensors"
holdout = 0.2

[[sae]]
name = "w{width}"
data = "planted"
train = { arch = "topk", k = 2, tokens = 2_000, batch_size = 100 }
axes = { width = [16, 24] }

[[metric]]
name = "fidelity"

[[metric]]
name = "meta_sae"
settings = { width = 8, k = 2, steps = 3, meta_seeds = 1, composition = false }
"""


def measure(suite: Path) -> dict[str, Record]:
    """Measure every case in a new process' place: a store that has checked nothing yet."""
    store = Store(suite.parent / "store")
    bench = Bench(REGISTRY, store)
    return {str(case): bench.measure(case) for case in make_plan(suite, REGISTRY, store).cases}


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def files_of(suite: Path) -> dict[str, bytes]:
    root = suite.parent / "store" / "artefacts"
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_one_bit_in_codes_trained_weights_or_nulls_changes_no_score(suite: Path) -> None:
    suite.write_text(TRAINED)
    first, before = measure(suite), files_of(suite)
    assert any(name.endswith("sae_weights.safetensors") for name in before)
    assert any(name.endswith("codes.safetensors") for name in before)
    for number, name in enumerate(before):
        if not name.endswith(".json") or "manifest" in name:
            flip(suite.parent / "store" / "artefacts" / name, 8 * (len(before[name]) // 2) + number)
    rerun = measure(suite)
    for case, record in first.items():
        assert rerun[case].scores == record.scores
    healed = {name: data for name, data in files_of(suite).items() if "training.json" not in name}
    assert healed == {name: data for name, data in before.items() if "training.json" not in name}


@given(bit=st.integers(0, 10**6), name=st.sampled_from(["a.bin", "in/b.bin", "manifest.json"]))
@settings(max_examples=40, deadline=None)
def test_any_flipped_bit_is_found_once_in_a_process(
    tmp_path_factory: pytest.TempPathFactory, bit: int, name: str
) -> None:
    root = tmp_path_factory.mktemp("store")
    made: list[int] = []

    def make(folder: Path) -> None:
        made.append(1)
        (folder / "in").mkdir()
        (folder / "a.bin").write_bytes(bytes(range(100)))
        (folder / "in" / "b.bin").write_bytes(b"b" * 50)

    folder = Store(root).artefact("thing", make, title="a thing")
    flip(folder / name, bit)
    store = Store(root)
    for _ in range(2):
        assert store.artefact("thing", make, title="a thing") == folder
        assert (folder / "a.bin").read_bytes() == bytes(range(100))
        assert (folder / "in" / "b.bin").read_bytes() == b"b" * 50
    assert len(made) <= 2
    if name != "manifest.json":  # a bit of white space there means nothing
        assert len(made) == 2


@pytest.mark.parametrize("change", ["added", "removed"])
def test_an_artefact_has_exactly_the_files_of_its_manifest(tmp_path: Path, change: str) -> None:
    def make(folder: Path) -> None:
        (folder / "x").write_text("x")

    folder = Store(tmp_path).artefact("thing", make, title="a thing")
    (folder / "y").write_text("y") if change == "added" else (folder / "x").unlink()
    Store(tmp_path).artefact("thing", make, title="a thing")
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "x"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["record", "table", "artefact", "run"])
def test_content_is_on_disk_before_its_name_and_the_name_before_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    events: list[tuple[str, Path]] = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        events.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def recorded_replace(self: Path, target: Path) -> Path:
        files = [path for path in self.rglob("*") if path.is_file()] if self.is_dir() else [self]
        synced = {path for event, path in events if event == "sync"}
        assert files
        assert set(files) <= synced, "named before it was on the disk"
        events.append(("replace", target))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    store = Store(tmp_path)
    write: dict[str, Callable[[], object]] = {
        "record": lambda: store.keep_error("id", {"error": "x"}),
        "table": lambda: store.keep_table("id", "t", pd.DataFrame({"x": [1]}).to_parquet),
        "artefact": lambda: store.artefact(
            "thing", lambda folder: [(folder / name).write_text(name) for name in "ab"], title="it"
        ),
        "run": lambda: store.keep_run("run", {}),
    }
    write[kind]()
    (index,) = [index for index, (event, _) in enumerate(events) if event == "replace"]
    target = events[index][1]
    assert ("sync", target.parent) in events[index + 1 :]


def test_a_store_that_cannot_be_written_still_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)

    def refuse(self: Path, *arguments: object, **more: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert store.remember("question", lambda: "answer") == "answer"
