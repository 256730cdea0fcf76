"""How far a run is, on the terminal, though pytest captures what cases print.

Each process notes what it is doing in a small file; a thread of the controller reads these notes
and shows them with the count of finished cases and the time still to go.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import pytest

FOLDER = "CANON_PROGRESS"
TERMINAL_SECONDS = 0.5
LOG_SECONDS = 15.0


class Note:
    """A process's word on what it is doing; written at most twice a second."""

    def __init__(self, worker: str) -> None:
        folder = os.environ.get(FOLDER)
        self._file = Path(folder) / f"{worker}.json" if folder else None
        self._case = ""
        self._written = 0.0

    def case(self, name: str) -> None:
        """A case begins or, with an empty name, has ended."""
        self._case = name
        self._write("", 0, 0)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Long work inside the case is so far."""
        if time.monotonic() - self._written >= TERMINAL_SECONDS or done == 0:
            self._write(what, done, total)

    def _write(self, what: str, done: int, total: int) -> None:
        if self._file is None:
            return
        self._written = time.monotonic()
        note = {"case": self._case, "what": what, "done": done, "total": total}
        with suppress(OSError):
            draft = self._file.with_suffix(".tmp")
            draft.write_text(json.dumps(note), encoding="utf-8")
            draft.replace(self._file)


class StatusLine:
    """A controller-side pytest plugin that shows the workers' notes while cases run."""

    def __init__(self, stream: TextIO, folder: Path) -> None:
        self._stream = stream
        self._folder = folder
        self._live = stream.isatty()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._left: Counter[str] = Counter()
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
                copy.close()
                os.environ.pop(FOLDER, None)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start showing when it is known what there is to measure."""
        options = session.config.option
        if options.collectonly or options.verbose != 0 or hasattr(session.config, "workerinput"):
            return
        self._count(session)
        if self._total:
            self._begin(options)

    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """With workers, the first one's collection says what there is to measure."""
        options = node.config.option
        if self._thread is None and options.verbose == 0 and ids and not options.collectonly:
            self._left = Counter(nodeid.rpartition("::")[2] for nodeid in ids)
            self._total = len(ids)
            self._begin(options)

    def _count(self, session: pytest.Session) -> None:
        self._left = Counter(item.nodeid.rpartition("::")[2] for item in session.items)
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
            self._left[kind] -= 1
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
            if self._live:
                self._print("\r\x1b[K")

    def _show_until_stopped(self) -> None:
        pause = TERMINAL_SECONDS if self._live else LOG_SECONDS
        while not self._stop.wait(pause):
            line = self.line()
            self._print(f"\r{_cut(line)}\x1b[K" if self._live else f"{line}\n")

    def _print(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()

    def line(self) -> str:
        """What is done, how long to go, and what each worker is at."""
        elapsed = time.monotonic() - self._started
        parts = [f"{self._done}/{self._total} cases", f"{_clock(elapsed)} gone"]
        left = self._seconds_left()
        if left is not None:
            parts.append(f"about {_clock(left)} to go")
        return " · ".join([*parts, *self._notes()])

    def _seconds_left(self) -> float | None:
        """Mean time of each kind of case so far times how many are left, over the workers."""
        times = [seconds for each in self._seconds.values() for seconds in each]
        if not times:
            return None
        overall = sum(times) / len(times)
        total = 0.0
        for kind, count in self._left.items():
            seen = self._seconds.get(kind)
            total += max(count, 0) * (sum(seen) / len(seen) if seen else overall)
        return total / self._workers

    def _notes(self) -> Iterator[str]:
        for file in sorted(self._folder.glob("*.json")):
            try:
                note = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, json.JSONDecodeError):
                continue
            if not note["case"]:
                continue
            share = f" {note['done'] / note['total']:.0%}" if note["total"] else ""
            what = f" ({note['what']}{share})" if note["what"] else ""
            yield f"{note['case']}{what}"


def _cut(line: str) -> str:
    with suppress(OSError, ValueError):
        width = os.get_terminal_size(sys.__stderr__.fileno() if sys.__stderr__ else 2).columns
        return line if len(line) < width else line[: width - 2] + "…"
    return line[:98]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
