"""The progress of a run on the terminal, although pytest captures what cases print.

Each process writes what it is doing to a small file. A thread of the controller reads these files
and shows them with the number of finished cases and the remaining time.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import pytest

from saebench_canon.cli.terminal_line import TerminalLine

FOLDER = "CANON_PROGRESS"
TERMINAL_SECONDS = 0.5
LOG_SECONDS = 15.0


class WorkerStatus:
    """What one process is doing, in a file that is written at most twice a second."""

    def __init__(self, worker: str) -> None:
        folder = os.environ.get(FOLDER)
        self._file = Path(folder) / f"{worker}.json" if folder else None
        self._case = self._kind = ""
        self._began = self._work_began = self._written = 0.0
        self._work = ""

    def case(self, name: str, kind: str = "") -> None:
        """A case of a kind begins; an empty name: it has ended."""
        self._case, self._kind, self._began = name, kind, time.time()
        self._write("", 0, 0)

    def __call__(self, work: str, done: int, total: int) -> None:
        """So much of a long computation inside the case is done."""
        if time.monotonic() - self._written >= TERMINAL_SECONDS or done == 0:
            self._write(work, done, total)

    def _write(self, work: str, done: int, total: int) -> None:
        if self._file is None:
            return
        self._written = time.monotonic()
        if work != self._work or done == 0:
            self._work, self._work_began = work, time.time()
        status = {
            "case": self._case, "kind": self._kind, "began": self._began, "work": work,
            "work_began": self._work_began, "done": done, "total": total,
        }  # fmt: skip
        with suppress(OSError):
            draft = self._file.with_suffix(".tmp")
            draft.write_text(json.dumps(status), encoding="utf-8")
            draft.replace(self._file)


class StatusLine:
    """A pytest plugin in the controller that shows what the workers are doing."""

    def __init__(self, stream: TextIO, folder: Path) -> None:
        self._line = TerminalLine(stream)
        self._folder = folder
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._remaining: Counter[str] = Counter()
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._started = 0.0
        self._total = self._done = self._workers = 0

    @classmethod
    @contextmanager
    def on(cls, stream: TextIO) -> Iterator[StatusLine]:
        """A status line on a copy of the stream, which pytest's capture does not reach."""
        with tempfile.TemporaryDirectory(prefix="canon-") as folder:
            os.environ[FOLDER] = folder
            try:
                copy = os.fdopen(os.dup(stream.fileno()), "w", encoding="utf-8", errors="replace")
            except (OSError, ValueError, AttributeError):
                copy = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            status = cls(copy, Path(folder))
            try:
                yield status
            finally:
                status.close()
                with suppress(OSError):  # what a closed terminal did not take
                    copy.close()
                os.environ.pop(FOLDER, None)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start when the cases are collected."""
        options = session.config.option
        if options.collectonly or options.verbose != 0 or hasattr(session.config, "workerinput"):
            return
        self._count(session)
        if self._total:
            self._begin(options)

    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """With workers, start when the first one has collected the cases."""
        options = node.config.option
        if self._thread is None and options.verbose == 0 and ids and not options.collectonly:
            self._remaining = Counter(nodeid.rpartition("::")[2] for nodeid in ids)
            self._total = len(ids)
            self._begin(options)

    def _count(self, session: pytest.Session) -> None:
        self._remaining = Counter(item.nodeid.rpartition("::")[2] for item in session.items)
        self._total = len(session.items)

    def _begin(self, options: Any) -> None:
        self._workers = max(len(getattr(options, "tx", None) or []), 1)
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._show_until_stopped, daemon=True)
        self._thread.start()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a finished case."""
        if report.when == "call" or (report.when == "setup" and report.failed):
            kind = report.nodeid.rpartition("::")[2]
            self._done += 1
            self._remaining[kind] -= 1
            if not any(key == "kept" for key, _ in report.user_properties):
                self._seconds[kind].append(report.duration)

    def pytest_sessionfinish(self) -> None:
        """Stop before pytest prints its summary."""
        self.close()

    def close(self) -> None:
        """Stop showing and clear the line."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._line.clear()

    def _show_until_stopped(self) -> None:
        pause = TERMINAL_SECONDS if self._line.is_terminal else LOG_SECONDS
        while not self._stop.wait(pause):
            self._line.show(self.text())

    def text(self) -> str:
        """The finished cases, the remaining time, and what each worker is doing."""
        elapsed = time.monotonic() - self._started
        parts = [f"{self._done}/{self._total} cases", f"{_clock(elapsed)} elapsed"]
        seconds = self._seconds_remaining()
        if seconds is not None:
            parts.append(f"about {_clock(seconds)} remaining")
        return " · ".join([*parts, *self._worker_texts()])

    def _seconds_remaining(self) -> float | None:
        """Mean seconds per kind of case times the number remaining, divided among the workers.

        A case that is running counts with what its mean, or its own progress, leaves of it; where
        it takes longer than others of its kind, so will those to come.
        """
        running = [status for status in self._statuses() if status["kind"] in self._remaining]
        times = list(chain.from_iterable(self._seconds.values()))
        if not times:
            return None
        overall, now = sum(times) / len(times), time.time()
        means = {
            kind: sum(seconds) / len(seconds) for kind, seconds in self._seconds.items() if seconds
        }
        waiting, total = self._remaining.copy(), 0.0
        for status in running:
            kind, elapsed = status["kind"], max(0.0, now - status["began"])
            mean = means.get(kind, overall)
            rest = max(mean - elapsed, _rest(status, now))
            means[kind] = max(mean, elapsed + rest)
            waiting[kind] -= 1
            total += rest
        total += sum(max(count, 0) * means.get(kind, overall) for kind, count in waiting.items())
        return total / self._workers

    def _statuses(self) -> Iterator[dict[str, Any]]:
        """What each worker that measures a case is doing."""
        for file in sorted(self._folder.glob("*.json")):
            try:
                status = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, json.JSONDecodeError):
                continue
            if status["case"]:
                yield status

    def _worker_texts(self) -> Iterator[str]:
        for status in self._statuses():
            share = f" {status['done'] / status['total']:.0%}" if status["total"] else ""
            work = f" ({status['work']}{share})" if status["work"] else ""
            yield f"{status['case']}{work}"


def _rest(status: dict[str, Any], now: float) -> float:
    """Seconds that a computation inside a case will still take, as its own progress says."""
    if not status["done"] or not status["total"]:
        return 0.0
    elapsed = max(0.0, now - status["work_began"])
    return float(elapsed * (status["total"] - status["done"]) / status["done"])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
