"""Files that survive a power loss: their content reaches the disk before their name does."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def sync_file(path: Path) -> None:
    """Write a file's content to the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Write every file in a folder, and the folder itself, to the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
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
    with suppress(OSError):  # some systems cannot open or sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
