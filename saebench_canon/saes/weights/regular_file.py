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


class NotRegular(ValueError):
    """Something else stands where a file should."""


def read_regular(path: Path) -> str:
    """The text of a file; raises NotRegular for anything else, and what opening it raises."""
    if (kind := special(path)) is not None:
        raise NotRegular(f"it is {kind}, not a regular file")
    try:
        return path.read_text(encoding="utf-8")
    except IsADirectoryError:
        raise NotRegular("it is a folder, not a regular file") from None
