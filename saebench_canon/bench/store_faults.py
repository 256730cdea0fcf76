"""What the system refuses a store, as one sentence with the path."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from saebench_canon.errors import StoreError

Use = Literal["written", "read", "locked", "used"]
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def guarding(root: Path, use: Use) -> Iterator[None]:
    """Raise StoreError for what the system refuses inside the block.

    That a file to be read is not there is for the caller to answer.
    """
    try:
        yield
    except Exception as error:
        absent = use == "read" and isinstance(error, ABSENT)
        if not absent and (isinstance(error, OSError) or _is_failed_save(error)):
            raise store_error(root, use, error) from error
        raise


def store_error(root: Path, use: Use, error: Exception) -> StoreError:
    """The sentence on an error of the system."""
    number = _number_of(error)
    reason = os.strerror(number) if number else getattr(error, "strerror", None) or str(error)
    path, hint = _path_of(error), None
    if number in FULL:
        hint = "Free some of the disk, or name another --store."
    elif use == "locked" and number in WITHOUT_LOCKS:
        reason = f"its file system has no locks: {reason}"
        hint = "Name a --store on a disk whose file system has locks."
    where = "--store" if path is None or path == root else f"--store, {path}"
    return StoreError(f"the store {root} cannot be {use}: {reason}", where=where, hint=hint)


def fault_of(error: BaseException, root: Path, *, making: bool = False) -> StoreError | None:
    """The StoreError of an error at a file of the store; None for any other error.

    `making`: the error arose while a file of the store was made, by code that does not say which.
    """
    if isinstance(error, StoreError):
        return error
    if isinstance(error, OSError) and not isinstance(error, ABSENT):
        path = _path_of(error)
        if path is not None and _is_below(path, root):
            return store_error(root, "used", error)
        if making and path is None and error.errno in (*FULL, errno.EROFS):
            return store_error(root, "written", error)
    if making and isinstance(error, Exception) and _is_failed_save(error):
        return store_error(root, "written", error)
    return None


def _number_of(error: Exception) -> int | None:
    """The system's number of an error; safetensors says it in its message."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else getattr(error, "errno", None)


def _path_of(error: Exception) -> Path | None:
    name = getattr(error, "filename", None)
    return Path(os.fsdecode(name)) if isinstance(name, (str, bytes, os.PathLike)) else None


def _is_below(path: Path, root: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))


def _is_failed_save(error: Exception) -> bool:
    """Whether safetensors, which raises no OSError, could not write a file."""
    return type(error).__name__ == "SafetensorError" and "I/O error" in str(error)
