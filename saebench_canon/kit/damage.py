"""Copies of a checkpoint that are moved, cut short, or changed by one byte."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saebench_canon.errors import CanonError

LARGEST = 2**28  # bytes of a checkpoint that is copied
CHANGES = 12  # bytes that are changed, each in a copy of its own


@dataclass(frozen=True)
class Copy:
    """A copy of a checkpoint: what to name in its ref, and its files."""

    path: Path
    files: tuple[Path, ...]


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


def copy_of(path: Path, into: Path, reads: Callable[[Path], object]) -> Copy:
    """A copy in a new folder; of a single file with its neighbours if it is not read alone."""
    into.mkdir(parents=True)
    if path.is_dir():
        folder = into / "moved"
        shutil.copytree(path, folder)
        return Copy(folder, tuple(sorted(each for each in folder.rglob("*") if each.is_file())))
    copy = into / path.name
    shutil.copy(path, copy)
    try:
        reads(copy)
    except CanonError:
        for each in path.parent.iterdir():
            if each.is_file() and each.stat().st_size <= LARGEST:
                shutil.copy(each, into / each.name)
    return Copy(copy, tuple(sorted(each for each in into.iterdir() if each.is_file())))


@dataclass(frozen=True)
class Place:
    """A byte of a checkpoint: a file, a member of it if it is an archive, and a position."""

    file: Path
    member: str | None
    at: int

    def __str__(self) -> str:
        inside = f" of {self.member}" if self.member is not None else ""
        return f"byte {self.at}{inside} in {self.file.name}"

    def flip(self) -> None:
        """Change the byte; an archive is written anew, so that its checksums are right."""
        if self.member is None:
            self.file.write_bytes(_flipped(self.file.read_bytes(), self.at))
            return
        with zipfile.ZipFile(self.file) as archive:
            members = [(each, archive.read(each)) for each in archive.infolist()]
        with zipfile.ZipFile(self.file, "w") as archive:
            for info, content in members:
                is_it = info.filename == self.member
                archive.writestr(info, _flipped(content, self.at) if is_it else content)


def _flipped(content: bytes, at: int) -> bytes:
    """The bytes with one of them changed."""
    changed = bytearray(content)
    changed[at] ^= 0x10
    return bytes(changed)


def places(copy: Copy) -> list[Place]:
    """Bytes to change: some in each of the largest members, behind any header."""
    members: list[tuple[int, Path, str | None]] = []
    for file in copy.files:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                members += [(each.file_size, file, each.filename) for each in archive.infolist()]
        elif file.stat().st_size:
            members.append((file.stat().st_size, file, None))
    members.sort(key=lambda each: (-each[0], str(each[1]), each[2] or ""))
    members = members[: CHANGES // 2]
    each_has = CHANGES // max(1, len(members))
    return [
        Place(file, member, size * (index + 1) // (each_has + 1))
        for size, file, member in members
        if size > 0
        for index in range(each_has)
    ]


def cut(file: Path, size: int) -> None:
    """Keep only the first bytes of a file."""
    with file.open("r+b") as opened:
        opened.truncate(size)
