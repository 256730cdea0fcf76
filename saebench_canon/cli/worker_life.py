"""A worker of `run -n` lives as long as its controller: no longer, and no shorter."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

SECONDS = 0.5
CONTROLLER = "controller"  # its process, among what a worker is told


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker on this machine which process it works for."""
    if node.gateway.spec.popen:
        node.workerinput[CONTROLLER] = os.getpid()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Leave a closed terminal to the controller, and end when that is gone."""
    controller = getattr(config, "workerinput", {}).get(CONTROLLER)
    if controller is None or not hasattr(signal, "SIGHUP"):
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.getppid() == controller:
        threading.Thread(target=_end_without, args=(controller,), daemon=True).start()


def _end_without(controller: int) -> None:
    """End this process when it has another parent: nobody would see what it measures.

    The system releases its locks, and the next run deletes its drafts.
    """
    while os.getppid() == controller:
        time.sleep(SECONDS)
    os._exit(1)
