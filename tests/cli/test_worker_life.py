"""Closed terminals and dead controllers: a run ends in order, and no worker outlives it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from planted import SUITE

STUCK = """
import os, time
from pathlib import Path

from saebench_canon import Score, hookimpl, metric


@metric(scores=[Score("count")], of="sae", version=1)
def stuck(sae):
    Path(f"{os.getpid()}.pid").touch()
    for _ in range(600):
        time.sleep(0.1)
    return {"count": 1.0}


@hookimpl
def canon_metrics():
    return [stuck]
"""


@pytest.fixture
def command(suite: Path) -> list[str]:
    """A run whose cases take a minute each."""
    Path("stuck.py").write_text(STUCK)
    suite.write_text(SUITE.split("[[metric]]")[0] + '[[metric]]\nname = "stuck"\n')
    words = ["run", "small.toml", "--plugin", "stuck.py"]
    return [sys.executable, "-m", "saebench_canon", *words]


def measuring(count: int) -> list[int]:
    """The processes that measure, once there are so many."""
    deadline = time.monotonic() + 60
    while len(found := list(Path().glob("*.pid"))) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) == count
    return [int(path.stem) for path in found]


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_workers_end_with_a_controller_that_was_killed(command: list[str]) -> None:
    started = subprocess.Popen([*command, "-n", "2"], stdout=subprocess.DEVNULL)
    workers = measuring(2)
    started.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 4
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    started.wait()
    assert not any(map(alive, workers))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_a_closed_terminal_stops_a_run_in_order(command: list[str], options: list[str]) -> None:
    outer, inner = pty.openpty()
    started = subprocess.Popen(
        [*command, *options], stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(inner)
    processes = measuring(2 if options else 1)
    os.close(outer)
    assert started.wait(timeout=30) == 2
    assert not any(map(alive, processes))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_hangup_that_is_ignored_stops_nothing(command: list[str]) -> None:
    started = subprocess.Popen(["nohup", *command, "-n", "2"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    workers = measuring(2)
    os.killpg(started.pid, signal.SIGHUP)
    time.sleep(1.5)
    assert started.poll() is None
    assert all(map(alive, workers))
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
