"""Copies of a checkpoint that are moved, truncated, or changed by one byte."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saebench_canon.errors import CanonError

LARGEST = 2**28  # bytes of a checkpoint that is copied
CHANGES = 12  # bytes that are changed, one to a copy


@dataclass(frozen=True)
class Copy:
    """A copy of a checkpoint: the path for its ref, and its files."""

    path: Path
    files: tuple[Path, ...]


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in _files(path))


def copy_of(path: Path, into: Path, reads: Callable[[Path], object]) -> Copy:
    """A copy in a new folder; a file that cannot be read alone is copied with its neighbours."""
    into.mkdir(parents=True)
    if path.is_dir():
        folder = into / "moved"
        shutil.copytree(path, folder)
        return Copy(folder, _files(folder))
    copy = into / path.name
    shutil.copy(path, copy)
    try:
        reads(copy)
    except CanonError:
        for neighbour in path.parent.iterdir():
            if neighbour.is_file() and neighbour.stat().st_size <= LARGEST:
                shutil.copy(neighbour, into / neighbour.name)
    return Copy(copy, _files(into))


def _files(path: Path) -> tuple[Path, ...]:
    """A file itself, or all files in a folder, sorted."""
    if path.is_file():
        return (path,)
    return tuple(sorted(file for file in path.rglob("*") if file.is_file()))


@dataclass(frozen=True)
class BytePosition:
    """A byte of a checkpoint: a file, a member of it if it is an archive, and a position."""

    file: Path
    member: str | None
    offset: int

    def __str__(self) -> str:
        inside = f" of {self.member}" if self.member is not None else ""
        return f"byte {self.offset}{inside} in {self.file.name}"

    def flip(self) -> None:
        """Change the byte; an archive is rewritten, so that its checksums are right."""
        if self.member is None:
            self.file.write_bytes(_flipped(self.file.read_bytes(), self.offset))
            return
        with zipfile.ZipFile(self.file) as archive:
            members = [(info, archive.read(info)) for info in archive.infolist()]
        with zipfile.ZipFile(self.file, "w") as archive:
            for info, content in members:
                flips = info.filename == self.member
                archive.writestr(info, _flipped(content, self.offset) if flips else content)


def _flipped(content: bytes, offset: int) -> bytes:
    """The bytes with one of them changed."""
    changed = bytearray(content)
    changed[offset] ^= 0x10
    return bytes(changed)


def byte_positions(copy: Copy) -> list[BytePosition]:
    """Bytes to change: some in each of the largest members, after any header."""
    members: list[tuple[int, Path, str | None]] = []
    for file in copy.files:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                members += [(info.file_size, file, info.filename) for info in archive.infolist()]
        elif file.stat().st_size:
            members.append((file.stat().st_size, file, None))
    members.sort(key=lambda member: (-member[0], str(member[1]), member[2] or ""))
    members = members[: CHANGES // 2]
    per_member = CHANGES // max(1, len(members))
    return [
        BytePosition(file, member, size * (index + 1) // (per_member + 1))
        for size, file, member in members
        if size > 0
        for index in range(per_member)
    ]


def cut(file: Path, size: int) -> None:
    """Keep only the first bytes of a file."""
    with file.open("r+b") as opened:
        opened.truncate(size)
