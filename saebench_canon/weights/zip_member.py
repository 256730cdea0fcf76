"""The bytes of one member of a zip archive, a bounded number at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from saebench_canon.errors import CanonError
from saebench_canon.weights.stored import BLOCK


def member_blocks(
    path: Path, member: str | zipfile.ZipInfo, *, start: int, size: int, name: str
) -> Iterator[bytes]:
    """`size` bytes of a member from `start` on; raises CanonError naming the tensor they are of."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            stream.seek(start)
            while size > 0:
                block = stream.read(min(size, BLOCK))
                if not block:
                    raise CanonError(f"the file ends within {name}", where=str(path))
                size -= len(block)
                yield block
    except (CanonError, GeneratorExit):
        raise
    except Exception as error:  # a damaged member raises what its compression pleases
        raise CanonError(f"{name} cannot be read ({error})", where=str(path)) from error
