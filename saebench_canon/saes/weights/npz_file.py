"""What a NumPy .npz file holds, read from its members' headers; pickled objects are refused."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.saes.weights.lazy_tensor import SIZES, Stored, Tensors, plausible
from saebench_canon.saes.weights.memory_map import mapped
from saebench_canon.saes.weights.zip_member import data_start, member_blocks

if TYPE_CHECKING:
    from torch import Tensor

BOMB = 100  # large weights never compress by this factor
SMALL = 2**26  # bytes below which any compression is accepted


@dataclass(frozen=True)
class Member:
    """One array of the file."""

    info: zipfile.ZipInfo
    header: int  # bytes of the array's own header
    dtype: str
    shape: tuple[int, ...]
    fortran: bool

    @property
    def nbytes(self) -> int:
        """The bytes of its numbers."""
        return math.prod(self.shape) * SIZES[self.dtype]


@dataclass(frozen=True)
class NpzFile:
    """An .npz file whose members' headers have been read."""

    path: Path
    members: dict[str, Member]

    def read(self, name: str) -> Tensor:
        """One of its arrays: mapped from the file, or unpacked where it is compressed."""
        import torch

        member = self.members[name]
        shape = member.shape[::-1] if member.fortran else member.shape
        if member.info.compress_type == zipfile.ZIP_STORED:
            start = data_start(self.path, member.info) + member.header
            flat = mapped(self.path, member.dtype, start, math.prod(shape))
        elif member.nbytes == 0:
            flat = torch.empty(0, dtype=getattr(torch, member.dtype))
        else:
            unpacked = bytearray()
            for block in self.blocks(name):
                unpacked += block
            flat = torch.frombuffer(unpacked, dtype=getattr(torch, member.dtype))
        array = flat.reshape(shape)
        return array.permute(*reversed(range(array.ndim))) if member.fortran else array

    def packed(self, name: str) -> int:
        """Bytes of memory, besides the file's mapped pages, that reading takes."""
        member = self.members[name]
        return 0 if member.info.compress_type == zipfile.ZIP_STORED else member.nbytes

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of one of its arrays, in file order."""
        member = self.members[name]
        yield from member_blocks(
            self.path, member.info, start=member.header, size=member.nbytes, name=name
        )


def open_npz(path: Path) -> Tensors:
    """The arrays of an .npz file, unread; raises CanonError if it is not one."""
    members: dict[str, Member] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if len({info.filename for info in archive.infolist()}) < len(archive.infolist()):
                raise CanonError("two members of the file have the same name", where=str(path))
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as stream:
                    members[name] = _member(name, info, stream, path)
    except CanonError:
        raise
    except Exception as error:  # a damaged archive raises many kinds of errors
        raise CanonError(f"the file is no .npz file, or a damaged one ({error})",
                         where=str(path)) from error  # fmt: skip
    source = NpzFile(path, members)
    return Tensors(
        path,
        {name: Stored(name, array.shape, array.dtype, source) for name, array in members.items()},
    )


def _member(name: str, info: zipfile.ZipInfo, stream: IO[bytes], path: Path) -> Member:
    """A member by its header; raises CanonError if it is no array of numbers."""
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    where = str(path)
    if dtype.hasobject:
        raise CanonError(f"{name} holds pickled Python objects, which are not read", where=where)
    if not plausible(shape):
        raise CanonError(f"the shape of {name} cannot be read", where=where)
    if dtype.name not in SIZES or dtype.byteorder == ">":
        raise CanonError(f"{name} is of {dtype}, which is no number format of weights", where=where)
    member = Member(info, stream.tell(), dtype.name, tuple(map(int, shape)), bool(fortran))
    if info.file_size != member.header + member.nbytes:
        raise CanonError(
            f"{name} should be {list(member.shape)} of {member.dtype}, but takes "
            f"{info.file_size - member.header} bytes",
            where=where,
        )
    if member.nbytes > max(SMALL, BOMB * info.compress_size):
        raise CanonError(
            f"{name} unpacks {info.compress_size} bytes to {member.nbytes}, which weights never do",
            where=where,
        )
    return member
