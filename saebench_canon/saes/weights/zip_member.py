"""The bytes of one member of a zip archive, a bounded number at a time."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from saebench_canon.errors import CanonError
from saebench_canon.saes.weights.lazy_tensor import BLOCK

LOCAL_HEADER = 30  # bytes of a member's local header before name and extra field


def data_start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: its local header may differ from the directory."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        head = file.read(LOCAL_HEADER)
    if len(head) < LOCAL_HEADER or head[:4] != b"PK\3\4":
        raise CanonError(f"the member {info.filename} is damaged", where=str(path))
    name, extra = struct.unpack("<HH", head[26:30])
    return info.header_offset + LOCAL_HEADER + int(name) + int(extra)


def member_blocks(
    path: Path, member: str | zipfile.ZipInfo, *, start: int, size: int, name: str
) -> Iterator[bytes]:
    """`size` bytes of a member from `start` on; raises CanonError naming their tensor."""
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
    except Exception as error:  # a damaged member raises whatever its compression raises
        raise CanonError(f"{name} cannot be read ({error})", where=str(path)) from error
