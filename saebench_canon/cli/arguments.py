"""Words of the command line that pytest or `::` would split: what they mean, and what it gets."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from saebench_canon.errors import CanonError
from saebench_canon.plugin.ref import is_bare_path

SPLITS = ("[", "::")  # in an argument of pytest, whatever follows is no path any more
ALIAS = "suite.toml"


def split(argument: str) -> tuple[str, list[str]]:
    """A suite or SAE, and the names after it: `::` separates them, but where a path has it."""
    parts = argument.split("::")
    for count in range(len(parts), 1, -1):
        head = "::".join(parts[:count])
        if os.path.exists(head):
            return head if is_bare_path(head) else f"./{head}", parts[count:]
    return parts[0], parts[1:]


def as_argument(path: Path, name: str, config: pytest.Config) -> str:
    """A suite's path as pytest reads it, if need be through a link that lasts as long as the run.

    Raises CanonError if there can be no such link.
    """
    for text in (str(path), os.path.relpath(path), name):
        if _is_whole(text) and os.path.realpath(text) == str(path):
            return text
    try:
        folder = tempfile.mkdtemp(prefix="canon-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        link = Path(folder) / ALIAS
        link.symlink_to(path)
    except OSError:
        link = path
    if not _is_whole(str(link)):
        raise CanonError(
            f"pytest cannot read a path with '[' or '::', {path}",
            hint="Run in the suite's folder, or rename the suite.",
        )
    return str(link)


def _is_whole(text: str) -> bool:
    return not any(mark in text for mark in SPLITS)
