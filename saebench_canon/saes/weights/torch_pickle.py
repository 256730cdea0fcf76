"""What the pickle of `torch.save` describes, read without running its code.

Every name in it is replaced by a harmless one, and only the instructions that dictionaries, lists,
numbers, texts and tensors need are followed. Tensors become positions of their numbers.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saebench_canon.errors import CanonError
from saebench_canon.saes.weights.lazy_tensor import SIZES

_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_FOLLOWED = (
    b"PROTO", b"FRAME", b"STOP", b"MARK", b"POP", b"GLOBAL", b"STACK_GLOBAL", b"REDUCE",
    b"BINPERSID", b"BINPUT", b"LONG_BINPUT", b"MEMOIZE", b"BINGET", b"LONG_BINGET", b"NONE",
    b"NEWTRUE", b"NEWFALSE", b"BININT", b"BININT1", b"BININT2", b"LONG1", b"BINFLOAT",
    b"BINUNICODE", b"SHORT_BINUNICODE", b"SHORT_BINBYTES", b"EMPTY_TUPLE", b"TUPLE", b"TUPLE1",
    b"TUPLE2", b"TUPLE3", b"EMPTY_LIST", b"APPEND", b"APPENDS", b"EMPTY_DICT", b"SETITEM",
    b"SETITEMS", b"DICT", b"LIST",
)  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """The numbers that one or more tensors are views of."""

    dtype: str
    key: str


@dataclass(frozen=True)
class View:
    """A tensor: where in a storage its numbers are."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class StateDict(dict[Any, Any]):
    """A dictionary whose attributes, such as a state dict's `_metadata`, do not matter."""


def described(data: bytes, where: str) -> Any:
    """What the pickle holds, its tensors as `View`; raises CanonError for a forbidden name.

    Other faults raise whatever error pickle raises.
    """

    def tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> View:
        if not isinstance(storage, Storage):
            raise CanonError(
                "the pickle makes a tensor from something that is no storage", where=where
            )
        return View(storage, offset, tuple(shape), tuple(stride))

    def first(value: Any, *rest: Any) -> Any:
        return value

    allowed: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): StateDict,
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch._utils", "_rebuild_parameter"): first,
        ("torch", "Size"): tuple,
        ("torch", "device"): _device,
    }
    allowed |= {("torch", name): dtype for name, dtype in _STORAGES.items()}
    allowed |= {("torch", dtype): dtype for dtype in SIZES}

    # Python's unpickler: the one in C allocates as many memo slots as a pickle names
    class Unpickler(pickle._Unpickler):
        dispatch = _dispatch()

        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in allowed:
                raise CanonError(
                    f"the pickle asks for {module}.{name}, which weights do not need",
                    where=where,
                    hint="Save the state dict alone, or as safetensors.",
                )
            return allowed[module, name]

        def persistent_load(self, description: Any) -> Storage:
            kind, dtype, key, *_ = description
            if kind != "storage" or dtype not in SIZES or not isinstance(key, str):
                raise CanonError("the pickle names a storage that is not one", where=where)
            return Storage(dtype, key)

    load: Callable[[], Any] = Unpickler(io.BytesIO(data)).load
    return load()


def _dispatch() -> dict[int, Any]:
    """The instructions that are followed; none of them sets an attribute."""
    known = pickle._Unpickler.dispatch
    codes = [getattr(pickle, name.decode())[0] for name in _FOLLOWED]
    return {**{code: known[code] for code in codes}, pickle.BUILD[0]: _forget}


def _forget(unpickler: Any) -> None:
    """BUILD: drop the attributes of a state dict, and refuse those of anything else."""
    unpickler.stack.pop()
    if not isinstance(unpickler.stack[-1], StateDict):
        raise pickle.UnpicklingError("attributes are set on something")


def _device(*parts: Any) -> str:
    return "device"
