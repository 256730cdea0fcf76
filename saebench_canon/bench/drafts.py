"""Drafts: files that have no name yet, and those that killed processes have left."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

import psutil
from filelock import FileLock, Timeout

NAME = re.compile(r"\..*-([0-9a-f]{8})-(\d+)-[0-9a-f]{32}\.tmp")
HOUR = 3600
KINDS = ("records", "errors", "runs", "suites", "answers", "tables/*", ".")


def draft_of(path: Path) -> Path:
    """A path in the same folder that no other process uses, and that is not a .json file."""
    return path.with_name(f".{path.stem[:8]}-{_here()}-{os.getpid()}-{uuid4().hex}.tmp")


def draft_of_artefact(folder: Path) -> Path:
    """The draft of an artefact's folder; whoever holds the lock on the artefact owns it."""
    return folder.with_name(f".{folder.name}")


def sweep(root: Path) -> None:
    """Delete the drafts of processes of this machine that no longer run."""
    for kind in KINDS:
        for path in root.glob(f"{kind}/.*.tmp"):
            owner = NAME.fullmatch(path.name)
            if owner and owner[1] == _here() and not psutil.pid_exists(int(owner[2])):
                path.unlink(missing_ok=True)
    for folder in root.glob("pytest-cache-files-*"):  # pytest's own draft of its cache
        if time.time() - folder.stat().st_mtime > HOUR:
            shutil.rmtree(folder, ignore_errors=True)
    for folder in root.glob("artefacts/.*"):
        lock = FileLock(root / "claims" / f"{folder.name[1:]}.lock")
        with suppress(Timeout, OSError, NotImplementedError), lock.acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


@cache
def _here() -> str:
    """Where a process number means this process: a machine since its start, or a container."""
    parts = [platform.node()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            parts.append(os.readlink(path) if "ns" in path else Path(path).read_text())
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=4).hexdigest()
