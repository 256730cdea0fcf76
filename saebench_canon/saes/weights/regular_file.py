"""What stands where a file should: a pipe, a socket or a device, whose reading may never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from saebench_canon.errors import CanonError

SPECIAL = {
    stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def special(path: Path) -> str | None:
    """What a path is that is neither a regular file nor a folder; None if it is one, or absent."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return SPECIAL.get(stat.S_IFMT(mode))


def refuse_special(path: Path, *, where: str | None = None) -> None:
    """Raise CanonError for a path that is there, but neither a regular file nor a folder."""
    if (kind := special(path)) is not None:
        raise CanonError(f"{path} is {kind}, not a regular file", where=where)
