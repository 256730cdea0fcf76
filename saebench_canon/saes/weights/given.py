"""Arrays that somebody gives instead of a file: NumPy's, lists, numbers, torch's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
from saebench_canon.saes.weights.lazy_tensor import Stored

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class GivenArray:
    """One array in memory, as the source of a `Stored` tensor."""

    path: Path  # of the checkpoint that it belongs to, for errors
    array: NDArray[Any] = field(repr=False)

    def read(self, name: str) -> Tensor:
        """A copy of the array as a tensor."""
        import torch

        return torch.from_numpy(self.array.copy())

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of the array."""
        yield self.array.tobytes()

    def packed(self, name: str) -> int:
        """No bytes: the array is in memory already."""
        return 0


def given_tensor(name: str, value: object, *, path: Path) -> Stored:
    """An array or a number as a tensor of a checkpoint; raises CanonError if it is neither."""
    if hasattr(value, "detach"):  # of torch, which is not imported for arrays of others
        tensor: Any = value.detach().cpu()
        value = (tensor if str(tensor.dtype) == "torch.float64" else tensor.float()).numpy()
    array = real_array(name, value, where=str(path))
    return Stored(name, array.shape, array.dtype.name, GivenArray(path, array))


def real_array(name: str, value: object, *, where: str | None) -> NDArray[Any]:
    """Real numbers as a writable array of float16, float32 or float64; whole ones as float64."""
    import numpy as np

    try:
        array = np.asarray(value)
    except Exception as error:  # lists of unequal lengths, objects that fail to become arrays
        raise CanonError(f"{name} is no array of numbers ({error})", where=where) from error
    if array.dtype.kind == "V" and array.dtype.names is None and array.dtype.subdtype is None:
        array = _of_foreign_format(array)
    if array.dtype.kind not in "fiu":
        raise CanonError(
            f"{name} holds something other than real numbers (a {type(value).__name__})"
            if array.dtype.kind == "O" else f"{name} is of {array.dtype}, not of real numbers",
            where=where,
        )  # fmt: skip
    if np.ma.is_masked(value):
        raise CanonError(f"{name} is an array with masked values", where=where)
    is_float = array.dtype.kind == "f" and array.dtype.itemsize <= 8
    native = array.dtype.newbyteorder("=") if is_float else np.dtype(np.float64)
    copied = not array.flags.writeable or any(stride < 0 for stride in array.strides)
    return array.astype(native, copy=copied)


def _of_foreign_format(array: NDArray[Any]) -> NDArray[Any]:
    """Numbers of a format that NumPy does not have (bfloat16, float8) as float32."""
    import numpy as np

    try:
        return array.astype(np.float32)
    except (TypeError, ValueError):
        return array
