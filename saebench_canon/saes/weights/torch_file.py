"""What a file of `torch.save` holds, read without torch's own reader.

Exactly the tensors that were checked are loaded: their numbers are mapped from the positions that
the checked pickle names, so no second reader can find other contents in the same bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
from saebench_canon.saes.weights.lazy_tensor import SIZES, Stored, Tensors, plausible
from saebench_canon.saes.weights.memory_map import mapped
from saebench_canon.saes.weights.torch_pickle import View, described
from saebench_canon.saes.weights.zip_member import data_start, member_blocks

if TYPE_CHECKING:
    from torch import Tensor

_PICKLE = 2**22  # bytes of the pickle, which holds names and shapes only
_ENTRIES = 50_000  # that dictionaries may hold in all
_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_DEEPEST = 6  # dictionaries within dictionaries


@dataclass(frozen=True)
class TorchFile:
    """A file of `torch.save` whose pickle has been read."""

    path: Path
    prefix: str  # of the archive's members
    members: Mapping[str, zipfile.ZipInfo] = field(repr=False)
    views: dict[str, View] = field(repr=False)

    def read(self, name: str) -> Tensor:
        """One of its tensors, mapped from the file."""
        import torch

        view = self.views[name]
        size = SIZES[view.storage.dtype]
        start = data_start(self.path, self._member(view)) + view.offset * size
        flat = mapped(self.path, view.storage.dtype, start, _span(view))
        return torch.as_strided(flat, view.shape, view.stride)

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of the part of the storage that a tensor spans, after its strides."""
        view = self.views[name]
        size = SIZES[view.storage.dtype]
        if view.stride != _contiguous(view.shape):
            yield repr(view.stride).encode()
        start, length = view.offset * size, _span(view) * size
        yield from member_blocks(self.path, self._member(view), start=start, size=length, name=name)

    def packed(self, name: str) -> int:
        """Bytes of memory, besides the file's mapped pages, that reading takes: none."""
        return 0

    def _member(self, view: View) -> zipfile.ZipInfo:
        return self.members[f"{self.prefix}data/{view.storage.key}"]


def open_torch(path: Path) -> Tensors:
    """What a file of `torch.save` holds: tensors unread, numbers and texts as they are.

    Dictionaries inside dictionaries become `Tensors`, too. Raises CanonError if it is no such file,
    or if its pickle needs more than weights do.
    """
    where = str(path)
    try:
        return _read_archive(path, where)
    except (CanonError, FileNotFoundError):
        raise
    except Exception as error:  # a damaged archive raises many kinds of errors
        old = _is_old(path)
        raise CanonError(
            "the file is in torch.save's format before PyTorch 1.6, which cannot be checked"
            if old else f"the file is no file of torch.save, or a damaged one ({_message(error)})",
            where=where,
            hint="If you trust it, load it with torch.load(…, weights_only=True) and save it again."
            if old else None,
        ) from error  # fmt: skip


def _read_archive(path: Path, where: str) -> Tensors:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if len({name.casefold() for name in members}) < len(archive.infolist()):
            raise CanonError("two members of the file have the same name", where=where)
        pickles = [name for name in members if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise CanonError("the file holds no torch.save archive", where=where)
        prefix = pickles[0].removesuffix("data.pkl")
        order = _small(archive, members.get(f"{prefix}byteorder"), where)
        if order is not None and order != b"little":
            raise CanonError("the numbers of the file are not little-endian", where=where)
        data = _small(archive, members[pickles[0]], where)
    contents = described(data or b"", where)
    if not isinstance(contents, dict):
        raise CanonError(
            f"the file holds a {type(contents).__name__}, not a dictionary", where=where
        )
    source = TorchFile(path, prefix, members, {})
    return _StateDictReader(source).tensors(contents, "", 0)


def _small(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, where: str) -> bytes | None:
    """The bytes of a member that is uncompressed and no larger than names and shapes need."""
    if info is None:
        return None
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > _PICKLE:
        raise CanonError(f"{info.filename} is larger than names and shapes need", where=where)
    return archive.read(info)


class _StateDictReader:
    """Turns what the pickle describes into tensors, up to the size of a state dict."""

    def __init__(self, source: TorchFile) -> None:
        self.source = source
        self.entries = 0

    def tensors(self, contents: Mapping[Any, Any], above: str, depth: int) -> Tensors:
        """A dictionary of the file with its tensors as `Stored`, checked to be in the file."""
        where = str(self.source.path)
        self.entries += len(contents)
        if depth > _DEEPEST or self.entries > _ENTRIES:
            raise CanonError(
                "the dictionaries of the file hold more than a state dict may", where=where
            )
        values: dict[str, Any] = {}
        for key, value in contents.items():
            name = f"{above}{key}"
            if isinstance(value, View):
                _check(name, value, self.source)
                self.source.views[name] = value
                values[str(key)] = Stored(name, value.shape, value.storage.dtype, self.source)
            elif isinstance(value, dict):
                values[str(key)] = self.tensors(value, f"{name}/", depth + 1)
            else:
                values[str(key)] = value
        return Tensors(self.source.path, values)


def _check(name: str, view: View, source: TorchFile) -> None:
    """Raise CanonError for a tensor beyond the end of its storage, or without a storage."""
    where = str(source.path)
    if not plausible((view.offset, *view.stride), many=True) or not plausible(view.shape):
        raise CanonError(f"the shape of {name} cannot be read", where=where)
    if len(view.shape) != len(view.stride):
        raise CanonError(f"the shape of {name} cannot be read", where=where)
    member = source.members.get(f"{source.prefix}data/{view.storage.key}")
    if member is None or member.compress_type != zipfile.ZIP_STORED:
        raise CanonError(f"the numbers of {name} are not in the file", where=where)
    size, span = SIZES[view.storage.dtype], _span(view)
    if (view.offset + span) * size > member.file_size:
        raise CanonError(
            f"{name} should be {list(view.shape)} of {view.storage.dtype}, but the file has only "
            f"{member.file_size} bytes for it",
            where=where,
        )
    if _numbers(view.shape) > span:
        raise CanonError(f"{name} repeats its numbers instead of holding them", where=where)


def _span(view: View) -> int:
    """How many numbers of the storage a tensor reaches over."""
    if 0 in view.shape:
        return 0
    steps = zip(view.shape, view.stride, strict=True)
    return 1 + sum((size - 1) * stride for size, stride in steps)


def _numbers(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_numbers(shape[axis + 1 :]) for axis in range(len(shape)))


def _message(error: Exception) -> str:
    """The start of an error's message, or its type if it has none."""
    return (str(error) or type(error).__name__)[:200]


def _is_old(path: Path) -> bool:
    """Whether the file begins with the number that torch's old format begins with."""
    with path.open("rb") as file:
        return file.read(len(_OLD)) == _OLD
