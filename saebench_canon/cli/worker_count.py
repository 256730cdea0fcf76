"""How many workers and threads a run starts: no more than can be of use."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from typing import Any

import pytest

from saebench_canon.cli.pytest_plugin import SESSION

EACH = 4  # workers, or threads of one, for each processor, at most
NOTE = pytest.StashKey[str]()


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """Bound the number of workers before xdist makes a list of them; refuse too many threads."""
    most, option = EACH * _processors(), config.option
    asked = getattr(option, "numprocesses", None)
    if isinstance(asked, int):
        if asked < 0:
            raise pytest.UsageError(f"-n must be at least 0, got {asked}")
        asked = min(asked, option.maxprocesses or asked)
        if asked > most:
            option.numprocesses = most
            config.stash[NOTE] = (
                f"{most} workers instead of {asked}, {EACH} for each of this machine's processors"
            )
    if getattr(option, "threads", 1) > most:  # so many may end the process without a word
        raise pytest.UsageError(
            f"--threads must be at most {most}, {EACH} for each of this machine's processors, "
            f"got {option.threads}"
        )
    option.tx = [_bounded(spec, most) for spec in getattr(option, "tx", None) or []]
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Start no more workers on this machine than there are cases."""
    state, tx = config.stash.get(SESSION, None), getattr(config.option, "tx", None)
    if state is not None and tx and set(tx) == {"popen"}:
        cases = sum(len(plan.cases) for plan in state.plans.values())
        config.option.tx = tx[: max(cases, 1)]
        if len(tx) > len(config.option.tx) and NOTE in config.stash:
            del config.stash[NOTE]


def workers_note(config: pytest.Config) -> str | None:
    """A sentence if there are fewer workers than were asked for, and more would have cases."""
    return config.stash.get(NOTE, None)


def _bounded(spec: str, most: int) -> str:
    number = re.fullmatch(r"(\d+)\*popen", spec)
    return f"{min(int(number[1]), most)}*popen" if number else spec


def _processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
