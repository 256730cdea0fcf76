"""A disk that refuses: chosen operations on files below a folder raise an error of the system."""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

OPERATIONS = ("mkdir", "create", "open", "write", "read", "fsync", "rename", "unlink", "listdir",
              "lock")  # fmt: skip
NAMELESS = ("write", "read", "fsync", "lock")  # the system's error carries no path
ID = re.compile(r"[0-9a-f]{32}")
DRAFT = re.compile(r"\..*\.tmp|\.ID")
FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Site:
    """An operation on a kind of path, such as the renaming of records/DRAFT."""

    operation: str
    path: str


@dataclass
class FaultyDisk:
    """Records the operations below `root`; refuses those at `site` with `number`."""

    root: Path
    site: Site | None = None
    number: int = errno.EIO
    seen: dict[Site, int] = field(default_factory=dict)  # how often
    on_refusal: Callable[[], None] = lambda: None  # called before an error is raised

    def kind(self, path: Path) -> str:
        """A path within the root, without what differs from run to run."""
        parts = [ID.sub("ID", part) for part in path.relative_to(self.root).parts]
        parts = ["DRAFT" if DRAFT.fullmatch(part) else part for part in parts]
        parts = [re.sub(r"^\d{8}T\d{15}-.*", "RUN.json", part) for part in parts]
        return "/".join(parts) or "."

    def check(self, operation: str, path: object) -> None:
        """Count an operation, and raise if it is to be refused."""
        place = _absolute(path)
        if not place.is_relative_to(self.root) or place.is_relative_to(self.root / "pytest"):
            return  # pytest's own cache answers for itself
        site = Site(operation, self.kind(place))
        self.seen[site] = self.seen.get(site, 0) + 1
        if site == self.site:
            self.on_refusal()
            names = () if operation in NAMELESS else (str(path),)
            raise OSError(self.number, os.strerror(self.number), *names)


def _absolute(path: Any) -> Path:
    return Path(os.path.abspath(os.fsdecode(path)))


def _path_of(target: Any, folder: int | None = None) -> Any:
    """The path of a descriptor, or of a name within the folder of a descriptor."""
    if isinstance(target, int):
        return os.readlink(f"/proc/self/fd/{target}").removesuffix(" (deleted)")
    if folder is None:
        return target
    return Path(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(target))


@contextmanager
def refusing(disk: FaultyDisk) -> Iterator[FaultyDisk]:
    """Inside the block, Python's operations on files pass the disk."""
    with pytest.MonkeyPatch.context() as patch:
        for name, operation in (("mkdir", "mkdir"), ("unlink", "unlink"), ("rmdir", "unlink"),
                                ("remove", "unlink"), ("replace", "rename"), ("rename", "rename"),
                                ("scandir", "listdir"), ("listdir", "listdir"),
                                ("fsync", "fsync")):  # fmt: skip
            patch.setattr(os, name, _checked(disk, operation, getattr(os, name)))
        real_open = os.open

        def os_open(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
            operation = "create" if flags & FLAGS else "open"
            disk.check(operation, _path_of(path, more.get("dir_fd")))
            return real_open(path, flags, *arguments, **more)

        patch.setattr(os, "open", os_open)
        patch.setattr(fcntl, "flock", _checked(disk, "lock", fcntl.flock))
        opened = _opener(disk, io.open)
        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)
        yield disk


def _checked(disk: FaultyDisk, operation: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: Any = ".", *arguments: Any, **more: Any) -> Any:
        disk.check(operation, _path_of(path, more.get("dir_fd")))
        return real(path, *arguments, **more)

    return call


def _opener(disk: FaultyDisk, real: Callable[..., Any]) -> Callable[..., Any]:
    """`open` whose files pass the disk when they are read and written."""

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            disk.check("write", self.name)
            return super().write(data)

        def readinto(self, buffer: Any) -> int:  # type: ignore[override]
            disk.check("read", self.name)
            return super().readinto(buffer)  # type: ignore[return-value]

        def readall(self) -> bytes:
            disk.check("read", self.name)
            return super().readall()

    def call(file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if isinstance(file, int) or not _absolute(file).is_relative_to(disk.root):
            return real(file, mode, *arguments, **more)
        plain = mode.replace("b", "").replace("t", "")
        disk.check("create" if set(plain) & set("wax+") else "open", file)
        raw = File(file, plain)
        buffered: Any
        if raw.readable():
            buffered = io.BufferedRandom(raw) if raw.writable() else io.BufferedReader(raw)
        else:
            buffered = io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        names = ("buffering", "encoding", "errors", "newline")
        said = {**dict(zip(names, arguments, strict=False)), **more}
        return io.TextIOWrapper(buffered, *(said.get(name) for name in names[1:]))

    return call
