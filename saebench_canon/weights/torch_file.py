"""What a file of `torch.save` holds, found without torch and without running what is in it.

The pickle inside is read by an unpickler whose every name is a stand-in: tensors become
descriptions, and a name that weights have no need of is refused. The numbers themselves are read by
`torch.load(weights_only=True)`.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
from saebench_canon.weights.stored import SIZES, Stored, Tensors
from saebench_canon.weights.zip_member import member_blocks

if TYPE_CHECKING:
    from torch import Tensor

_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_PICKLE_LIMIT = 2**26  # bytes of the pickle, which holds names and shapes only


@dataclass(frozen=True)
class Storage:
    """The numbers that one or more tensors are views of."""

    dtype: str
    key: str
    numel: int


@dataclass(frozen=True)
class View:
    """A tensor: where in a storage its numbers are."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Dict(dict[Any, Any]):
    """A dictionary whose attributes, such as a state dict's `_metadata`, do not matter."""

    def __setstate__(self, state: object) -> None:
        """Take no notice."""


@dataclass(frozen=True)
class TorchFile:
    """A file of `torch.save` whose pickle has been looked into."""

    path: Path
    prefix: str  # of the archive's members
    views: dict[str, View] = field(repr=False)

    @cached_property
    def _loaded(self) -> Any:
        import torch

        try:
            return torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # a damaged file raises half a dozen kinds
            raise CanonError(f"torch cannot read it ({error})", where=str(self.path)) from error

    def read(self, name: str) -> Tensor:
        """One of its tensors, mapped from the file."""
        value = self._loaded
        for key in name.split("/"):
            value = value[key]
        tensor: Tensor = value.detach()
        return tensor

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of the part of the storage that a tensor spans, after how it lies in it."""
        view = self.views[name]
        size = SIZES[view.storage.dtype]
        if view.stride != _contiguous(view.shape):
            yield repr(view.stride).encode()
        member = f"{self.prefix}data/{view.storage.key}"
        start = view.offset * size
        yield from member_blocks(self.path, member, start=start, size=_span(view) * size, name=name)


def open_torch(path: Path) -> Tensors:
    """What a file of `torch.save` holds: tensors unread, numbers and texts as they are.

    Tensors inside dictionaries are dictionaries of tensors. Raises CanonError when it is no such
    file, or when its pickle asks for more than weights need.
    """
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = {info.filename: info for info in archive.infolist()}
            pickles = [name for name in names if name.endswith("data.pkl")]
            if len(pickles) != 1:
                raise CanonError("it holds no torch.save archive", where=where)
            prefix = pickles[0].removesuffix("data.pkl")
            order = names.get(f"{prefix}byteorder")
            if order is not None and archive.read(order)[:6] != b"little":
                raise CanonError("its numbers are not little-endian", where=where)
            if names[pickles[0]].file_size > _PICKLE_LIMIT:
                raise CanonError("its pickle is larger than names and shapes need", where=where)
            held = _unpickled(archive.read(pickles[0]), where)
    except (CanonError, FileNotFoundError):
        raise
    except Exception as error:  # a damaged archive raises half a dozen kinds
        old = _is_old(path)
        raise CanonError(
            "this is torch.save's format before PyTorch 1.6, which cannot be looked into"
            if old else f"this is not a file of torch.save, or a damaged one ({error})",
            where=where,
            hint="Load it with torch and save it again." if old else None,
        ) from error  # fmt: skip
    if not isinstance(held, dict):
        raise CanonError(f"it holds a {type(held).__name__}, not a dictionary", where=where)
    views: dict[str, View] = {}
    source = TorchFile(path, prefix, views)
    return _tensors(held, "", source, names)


def _tensors(
    held: Mapping[Any, Any], above: str, source: TorchFile, members: Mapping[str, zipfile.ZipInfo]
) -> Tensors:
    """A dictionary of the file with its tensors as `Stored`, whose bytes are in the file."""
    found: dict[str, Any] = {}
    for key, value in held.items():
        name = f"{above}{key}"
        if isinstance(value, View):
            _check(name, value, source, members)
            source.views[name] = value
            found[str(key)] = Stored(name, value.shape, value.storage.dtype, source)
        elif isinstance(value, dict):
            found[str(key)] = _tensors(value, f"{name}/", source, members)
        else:
            found[str(key)] = value
    return Tensors(source.path, found)


def _check(
    name: str, view: View, source: TorchFile, members: Mapping[str, zipfile.ZipInfo]
) -> None:
    """Refuse a tensor that reaches beyond its storage, or a storage that the file lacks."""
    where = str(source.path)
    member = members.get(f"{source.prefix}data/{view.storage.key}")
    size = SIZES[view.storage.dtype]
    numbers = (view.offset, *view.shape, *view.stride)
    whole = all(type(each) is int and each >= 0 for each in numbers)
    if not whole or len(view.shape) != len(view.stride):
        raise CanonError(f"the shape of {name} cannot be read", where=where)
    if member is None or member.compress_type != zipfile.ZIP_STORED:
        raise CanonError(f"the numbers of {name} are not in the file", where=where)
    if (view.offset + _span(view)) * size > member.file_size:
        raise CanonError(
            f"{name} is said to be {list(view.shape)} of {view.storage.dtype}, and the file has "
            f"{member.file_size} bytes for it",
            where=where,
        )


def _span(view: View) -> int:
    """How many numbers of the storage a tensor reaches over."""
    if 0 in view.shape:
        return 0
    steps = zip(view.shape, view.stride, strict=True)
    return 1 + sum((size - 1) * stride for size, stride in steps)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))


def _unpickled(data: bytes, where: str) -> Any:
    """What the pickle describes, every name in it a stand-in of ours."""

    def rebuild(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> View:
        if not isinstance(storage, Storage):
            raise CanonError("its pickle makes tensors of something else", where=where)
        return View(storage, offset, tuple(shape), tuple(stride))

    def parameter(data: Any, *rest: Any) -> Any:
        return data

    allowed: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): _Dict,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild,
        ("torch._utils", "_rebuild_parameter"): parameter,
        ("torch", "Size"): tuple,
        ("torch", "device"): _text,
    }
    allowed |= {("torch", name): dtype for name, dtype in _STORAGES.items()}
    allowed |= {("torch", dtype): dtype for dtype in SIZES}

    # the unpickler in Python: that in C takes memory for as many memo slots as a pickle names
    class Unpickler(pickle._Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in allowed:
                raise CanonError(
                    f"its pickle wants {module}.{name}, which weights have no need of",
                    where=where,
                    hint="Save the state dict alone, or as safetensors.",
                )
            return allowed[module, name]

        def persistent_load(self, told: Any) -> Storage:
            kind, dtype, key, _, numel = told
            if kind != "storage" or dtype not in SIZES or not isinstance(key, str):
                raise CanonError("its pickle names a storage that is none", where=where)
            return Storage(dtype, key, int(numel))

    load: Callable[[], Any] = Unpickler(io.BytesIO(data)).load
    return load()


def _text(*parts: Any) -> str:
    return ":".join(map(str, parts))


def _is_old(path: Path) -> bool:
    """Whether the file begins as pickles do, or tar files."""
    with path.open("rb") as file:
        head = file.read(512)
    return head[:1] == b"\x80" or head[257:262] == b"ustar"
