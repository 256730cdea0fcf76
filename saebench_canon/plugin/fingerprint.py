"""One way to say what something is: a digest of plain data, the same in every process."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Protocol


class Remembers(Protocol):
    """Something that keeps an answer that is slow to find."""

    def remember(self, key: str, make: Any) -> str:
        """The kept answer, or the made one, kept from now on."""


def fingerprint(what: Any) -> str:
    """Hex digest of JSON-like data; key order does not matter, and 1 and 1.0 differ."""
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Hex digest of a file's content; read once a process for as long as it stays as it is."""
    status = path.stat()
    return _file_digest(path, status.st_mtime_ns, status.st_size)


@cache
def _file_digest(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
