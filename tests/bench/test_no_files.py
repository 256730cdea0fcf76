"""Pipes, devices and folders where a store has files: nothing waits for them, and they are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from planted import SUITE

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.results import keep_run
from saebench_canon.bench.store import Store
from saebench_canon.cli.main import main
from saebench_canon.plugin.registry import load_registry

KINDS = ("errors/*.json", "records/*.json", "runs/*.json", "tables/*/*",
         "artefacts/*/manifest.json", "artefacts/*/codes.safetensors",
         "artefacts/*/sinks.json", "claims/*.lock")  # fmt: skip
MADE: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
}


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """A test that waits for a pipe fails instead."""

    def fail(*_: object) -> None:
        raise TimeoutError("it waits for what is no file")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(100)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def measured(suite: Path) -> Path:
    """The store of a suite whose cases are measured, but for one that failed."""
    suite.write_text(SUITE.partition('[[metric]]\nname = "stitching"')[0])
    registry, store = load_registry(), Store(Path(".canon"))
    plan, bench = make_plan(suite, registry, store), Bench(registry, store)
    keep_run(plan, name="small.toml", flags={})
    keep_run(plan, name="small.toml", flags={})
    for case in plan.cases[1:]:
        bench.measure(case)
    store.keep_error(plan.ids[0], {"case": str(plan.cases[0]), "error": "oops"})
    return store.root


def spoil(root: Path, kind: str, make: Callable[[Path], None]) -> list[Path]:
    paths = sorted(root.glob(kind))
    assert paths
    for path in paths[-1:] if "runs" in kind else paths:
        path.unlink()
        make(path)
    return paths


@pytest.mark.parametrize("made", MADE)
def test_what_is_no_file_is_told_and_what_can_be_shown_is_shown(
    measured: Path, capsys: pytest.CaptureFixture[str], made: str
) -> None:
    for kind in KINDS:
        spoil(measured, kind, MADE[made])
    for command in (["show"], ["plan", "small.toml"]):
        assert main(command) == 0
        output = capsys.readouterr()
        told = (output.out + output.err).lower()
        assert ("run file" in told) == (command == ["show"])
        what = "a folder" if made == "folder" else "a named pipe" if made == "pipe" else "a device"
        assert f"it is {what}, not a regular file" in told
        assert "damaged and counts as not measured" in told
        assert "the error file" in told


@pytest.mark.parametrize("made", ["pipe", "device"])
def test_a_run_measures_what_is_no_file_again(measured: Path, made: str) -> None:
    for kind in KINDS if made == "pipe" else KINDS[:-1]:  # locks are never opened through links
        spoil(measured, kind, MADE[made])
    command = [sys.executable, "-m", "saebench_canon", "run", "small.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not a regular file" in done.stdout
    for kind in ("records/*.json", "artefacts/*/manifest.json"):
        assert all(path.is_file() for path in measured.glob(kind))
    assert not list(measured.glob("errors/*"))


def test_a_pipe_in_pytests_cache_is_a_sentence(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = measured / "pytest" / "v" / "cache"
    cache.mkdir(parents=True)
    os.mkfifo(cache / "lastfailed")
    assert main(["run", "small.toml"]) == 4
    assert "lastfailed is a named pipe, not a regular file (--store)" in capsys.readouterr().err
