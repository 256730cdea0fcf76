"""Files that survive a power loss: their content reaches the disk before their name does."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from saebench_canon.bench.folders import paths_below

LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)  # the disk has failed or is full


def sync_file(path: Path) -> None:
    """Write a file's content to the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Write every file in a folder, and the folder itself, to the disk."""
    for path in reversed(paths_below(folder)):
        if path.is_file():
            sync_file(path)
        else:
            _sync_folder(path)
    _sync_folder(folder)


def replace_durably(draft: Path, path: Path) -> None:
    """Give a file or folder that is on the disk its name, and write the name to the disk."""
    draft.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk, where the system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in LOST:
            raise
