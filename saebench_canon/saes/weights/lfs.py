"""Pointers of Git LFS, which a clone without `git lfs` has instead of weights."""

from __future__ import annotations

from pathlib import Path

from saebench_canon.errors import CanonError

POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """Raise CanonError for a file that is a pointer of Git LFS."""
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise CanonError(
                "the file is a Git LFS pointer, not weights",
                where=str(path),
                hint="Run `git lfs pull` in its repository.",
            )
