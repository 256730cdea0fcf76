"""Locks that the system releases with their owner, even if that is killed."""

from __future__ import annotations

import os
from pathlib import Path


def check_locks(path: Path) -> None:
    """Raise OSError if the file, which no other process uses, cannot be locked.

    `filelock` does not say so of every file system: it waits without end, or takes the existence
    of a file for a lock, which then outlives a process that is killed.
    """
    try:
        import fcntl
    except ImportError:  # Windows, whose file systems all have locks
        return
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
