"""Drafts that killed processes leave are swept by the next run, and those of live ones are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from saebench_canon.bench.drafts import DAY, draft_of
from saebench_canon.bench.store import Store

HOUR = DAY // 24
ID = "0123456789abcdef" * 2
FOLDERS = ("records", "errors", "runs", "suites", "answers", f"tables/{ID}", ".")
KILLED = """
import os, signal, sys
from pathlib import Path
from saebench_canon.bench.drafts import draft_of
draft_of(Path(sys.argv[1])).write_text("half of it")
os.kill(os.getpid(), signal.SIGKILL)
"""
HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def written(path: Path, *, age: int) -> Path:
    """A draft that is so many nanoseconds old by the clock of its file system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half of it")
    time = path.stat().st_mtime_ns - age
    os.utime(path, ns=(time, time))
    return path


def elsewhere(path: Path) -> Path:
    """The name of another machine's draft, whose process number means nothing here."""
    mine = draft_of(path)
    place = mine.name.split("-")[-3]
    return mine.with_name(mine.name.replace(place, "00000000" if place[0] != "0" else "ffffffff"))


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_draft_of_a_killed_process_is_swept_at_once(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "thing.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    (draft,) = path.parent.glob(".*.tmp")
    Store(tmp_path).prepare()
    assert not draft.exists()


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("age", [-5 * DAY, 0, 10 * DAY])
def test_the_draft_of_a_live_process_stays_however_old(
    tmp_path: Path, folder: str, age: int
) -> None:
    draft = written(draft_of(tmp_path / folder / "thing.json"), age=age)
    Store(tmp_path).prepare()
    assert draft.exists()


@pytest.mark.parametrize("folder", ["records", f"tables/{ID}", "."])
@pytest.mark.parametrize("named", ["elsewhere", "without owner"])
@pytest.mark.parametrize(
    ("age", "stays"),
    [(-5 * DAY, True), (0, True), (DAY - HOUR, True), (DAY + HOUR, False), (40 * DAY, False)],
)
def test_a_draft_of_nobody_here_is_swept_after_a_day(
    tmp_path: Path, folder: str, named: str, age: int, stays: bool
) -> None:
    path = tmp_path / folder / "thing.json"
    name = elsewhere(path) if named == "elsewhere" else path.with_name(f".thing-{ID}.tmp")
    draft = written(name, age=age)
    Store(tmp_path).prepare()
    assert draft.exists() == stays


def test_the_age_is_that_of_the_file_systems_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = written(elsewhere(tmp_path / "records" / "thing.json"), age=HOUR)
    monkeypatch.setattr("time.time", lambda: 4e9)  # this machine's clock is decades ahead
    monkeypatch.setattr("time.time_ns", lambda: 4 * 10**18)
    Store(tmp_path).prepare()
    assert draft.exists()


def test_nothing_but_drafts_is_swept(tmp_path: Path) -> None:
    names = ("records/x.json", ".gitignore", "records/.x.json", "tables/x.tmp", "artefacts/x/y.tmp")
    paths = [written(tmp_path / name, age=40 * DAY) for name in names]
    Store(tmp_path).prepare()
    assert all(path.exists() for path in paths)


@pytest.mark.skipif(os.name == "nt", reason="uses flock")
@pytest.mark.parametrize("live", [True, False])
def test_an_artefacts_draft_stays_while_its_lock_is_held(tmp_path: Path, live: bool) -> None:
    draft = written(tmp_path / "artefacts" / f".{ID}" / "codes", age=10 * DAY).parent
    lock = tmp_path / "claims" / f"{ID}.lock"
    lock.parent.mkdir()
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        if not live:
            holder.kill()
            holder.wait()
        Store(tmp_path).prepare()
        assert draft.exists() == live
        holder.communicate()


def test_a_draft_that_cannot_be_deleted_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = written(elsewhere(tmp_path / "records" / "thing.json"), age=10 * DAY)
    unlink = Path.unlink

    def refuse(self: Path, missing_ok: bool = False) -> None:
        if self == draft:
            raise PermissionError(13, "Permission denied", str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    Store(tmp_path).prepare()
    assert draft.exists()


def test_a_process_number_that_is_free_belongs_to_no_live_draft(tmp_path: Path) -> None:
    mine = draft_of(tmp_path / "records" / "thing.json")
    name = mine.name.replace(f"-{os.getpid()}-", f"-{dead()}-")
    draft = written(mine.with_name(name), age=-DAY)
    Store(tmp_path).prepare()
    assert not draft.exists()
