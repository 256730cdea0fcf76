"""Digests of plain data and of files, equal in every process."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Protocol


class Remembers(Protocol):
    """A store of answers that are slow to compute."""

    def remember(self, key: str, make: Any) -> str:
        """The stored answer; if there is none, it is computed and stored."""


def fingerprint(data: Any) -> str:
    """Hex digest of JSON-like data; key order does not matter, and 1 and 1.0 differ."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Hex digest of a file's content; a process reads it once unless the file changes."""
    status = path.stat()
    return _file_digest(path, status.st_mtime_ns, status.st_size)


@cache
def _file_digest(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
