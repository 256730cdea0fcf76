"""Drafts: files that have no name yet, and those that killed processes have left."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

import psutil
from filelock import FileLock, Timeout

NAME = re.compile(r"\..*-([0-9a-f]{8})-(\d+)-[0-9a-f]{32}\.tmp")
KINDS = ("records", "errors", "runs", "suites", "answers", "tables/*", ".")
DAY = 24 * 60 * 60 * 10**9  # nanoseconds


def draft_of(path: Path) -> Path:
    """A path in the same folder that no other process uses, and that is not a .json file."""
    return path.with_name(f".{path.stem[:8]}-{_here()}-{os.getpid()}-{uuid4().hex}.tmp")


def draft_of_artefact(folder: Path) -> Path:
    """The draft of an artefact's folder; whoever holds the lock on the artefact owns it."""
    return folder.with_name(f".{folder.name}")


def sweep(root: Path, now: int) -> None:
    """Delete the drafts that no process will name; what cannot be deleted stays.

    `now` is the modification time, in nanoseconds, of a file that was just written into the store:
    the clock of its file system, which dates the drafts of other machines.
    """
    for kind in KINDS:
        with suppress(OSError):
            for path in root.glob(f"{kind}/.*.tmp"):
                if not _is_alive(path, now):
                    path.unlink(missing_ok=True)
    with suppress(OSError):
        for folder in root.glob("pytest-cache-files-*"):  # pytest's own draft of its cache
            if now - folder.stat().st_mtime_ns > DAY:
                shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        for folder in root.glob("artefacts/.*"):
            lock = FileLock(root / "claims" / f"{folder.name[1:]}.lock")
            with suppress(Timeout, OSError, NotImplementedError), lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def _is_alive(draft: Path, now: int) -> bool:
    """Whether a process may still write a draft: one that runs here, or of the last day elsewhere.

    A draft from the future, since a clock was set back, counts as one of the last day.
    """
    owner = NAME.fullmatch(draft.name)
    if owner and owner[1] == _here():
        return psutil.pid_exists(int(owner[2]))
    return now - draft.stat().st_mtime_ns < DAY


@cache
def _here() -> str:
    """Where a process number means this process: a machine since its start, or a container."""
    parts = [platform.node()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            parts.append(os.readlink(path) if "ns" in path else Path(path).read_text())
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=4).hexdigest()
