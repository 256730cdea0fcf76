"""`saebench-canon run`: pytest, isolated from the user's pytest configuration."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

INI = Path(__file__).with_name("run.ini")
PLUGINS = (
    "saebench_canon.cli.pytest_plugin", "saebench_canon.cli.pytest_once",
    "saebench_canon.cli.pytest_terminal", "saebench_canon.cli.worker_count",
    "saebench_canon.cli.worker_life", "xdist.plugin",
)  # fmt: skip
AMBIENT = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")
SEALED = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTHONSAFEPATH": "1",  # or workers import json.py of the working folder instead of Python's
}


def run(arguments: Sequence[str]) -> int:
    """Measure a suite; the arguments are pytest's and the plugin's. Returns pytest's exit code."""
    import pytest

    from saebench_canon.cli.status_line import StatusLine
    from saebench_canon.cli.streams import without_reader

    _check_cache(_store(arguments) / "pytest")
    with _hermetic(), _stopped_by_signals(), without_reader(), StatusLine.on(sys.stderr) as status:
        return int(pytest.main(pytest_arguments(arguments), plugins=[status]))


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Inside the block, SIGTERM (of Slurm, of containers) and SIGHUP (of a closed terminal) stop
    the run as Ctrl-C does; a signal that is ignored, as `nohup` has it, stays so.
    """
    numbers = [
        number
        for name in ("SIGTERM", "SIGHUP")
        if (number := getattr(signal, name, None)) is not None
        and signal.getsignal(number) is not signal.SIG_IGN
    ]

    def interrupt(number: int, frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)  # once is enough; let the run end in order
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_cache(folder: Path) -> None:
    """Raise CanonError for a pipe or a device in pytest's cache, which pytest would wait for."""
    from saebench_canon.saes.weights.regular_file import refuse_special

    for path in folder.rglob("*"):
        refuse_special(path, where="--store")


def pytest_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments, preceded by those that isolate pytest from its surroundings."""
    options = ["-c", str(INI), "--rootdir", str(Path.cwd()), "--noconftest"]
    options += ["--no-header", "--disable-warnings", "-rE"]  # pytest_once prints the rest, once
    for plugin in PLUGINS:
        options += ["-p", plugin]
    options += ["-o", f"cache_dir={os.path.realpath(_store(arguments) / 'pytest')}"]
    if _parallel(arguments) and not any(argument.startswith("--dist") for argument in arguments):
        options += ["--dist", "worksteal"]
    return [*options, *arguments]


def _store(arguments: Sequence[str]) -> Path:
    """The store among the arguments; pytest's own cache is in it."""
    from saebench_canon.bench.store import DEFAULT

    for index, argument in enumerate(arguments):
        if argument.startswith("--store="):
            return Path(argument.partition("=")[2])
        if argument == "--store" and index + 1 < len(arguments):
            return Path(arguments[index + 1])
    return DEFAULT


def _parallel(arguments: Sequence[str]) -> bool:
    return any(
        argument in ("-n", "--numprocesses") or argument.startswith(("-n", "--numprocesses="))
        for argument in arguments
        if not argument.startswith("--no")
    )


@contextmanager
def _hermetic() -> Iterator[None]:
    """Remove pytest's settings from the environment, for workers too."""
    saved = {name: os.environ.pop(name, None) for name in (*AMBIENT, *SEALED)}
    os.environ.update(SEALED)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
