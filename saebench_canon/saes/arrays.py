"""An array argument as a tensor: torch's of any number format, NumPy's, lists, numbers."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from saebench_canon.errors import CanonError, message_of
from saebench_canon.saes.weights.given import real_array

Array: TypeAlias = Tensor | ArrayLike

LARGEST = 1e18  # of a weight: products of two fit into float32
CHECKED = 2**26  # numbers checked at once for one that is not finite


def as_tensor(name: str, value: object, *, where: str | None) -> Tensor:
    """The array as a dense tensor of real numbers; raises CanonError if it is missing or none."""
    if value is None:
        raise CanonError(f"{name} is missing", where=where)
    if not isinstance(value, Tensor):
        return torch.from_numpy(real_array(name, value, where=where))
    if value.is_meta:
        raise CanonError(f"{name} is on the meta device, which holds no numbers", where=where)
    if value.is_complex() or value.dtype == torch.bool:
        kind = str(value.dtype).removeprefix("torch.")
        raise CanonError(f"{name} is of {kind}, not of real numbers", where=where)
    try:
        tensor = value.detach().dequantize() if value.is_quantized else value.detach().to_dense()
        return tensor.float() if tensor.dtype.itemsize == 1 else tensor  # float8 has no maximum
    except (RuntimeError, NotImplementedError) as error:
        raise CanonError(f"{name} cannot be read ({message_of(error)})", where=where) from error


def copied(name: str, value: object, *shape: int, like: Tensor, where: str | None = None) -> Tensor:
    """A copy of an array in float64 if `like` is, else in float32, on the device of `like`.

    Raises CanonError if it is missing, has another shape, or a value that cannot be computed with.
    """
    tensor = as_tensor(name, value, where=where)
    if tuple(tensor.shape) != shape:
        raise CanonError(
            f"{name} has shape {list(tensor.shape)} where {list(shape)} is expected", where=where
        )
    size = largest(tensor)
    if not size < math.inf:
        raise CanonError(f"{name} holds a value that is not finite", where=where)
    if size > LARGEST:
        raise CanonError(
            f"{name} holds the value {size:.3g}, with which codes overflow", where=where
        )
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    # one copy, which is then worked on in place: the tensor itself may be mapped from a file
    return torch.empty(shape, dtype=dtype, device=like.device).copy_(tensor)


def largest(tensor: Tensor) -> float:
    """The largest absolute value, computed in parts; nan if one value is nan."""
    if tensor.numel() == 0:
        return 0.0
    flat = tensor if tensor.ndim else tensor[None]
    parts = torch.split(flat, max(1, CHECKED // max(1, flat[0].numel())))
    return max((float(part.abs().max()) for part in parts), key=lambda size: (size != size, size))


def flag(name: str, value: object, *, where: str | None) -> bool:
    """True or false, of Python, NumPy or torch, or 0 or 1; raises CanonError for anything else."""
    alone = isinstance(value, Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1
    one = value.item() if alone else value  # type: ignore[attr-defined]
    if isinstance(one, int) and one in (0, 1):
        return bool(one)
    shown = repr(one) if isinstance(one, str | int | float) else f"a {type(one).__name__}"
    raise CanonError(f"{name} must be true or false, got {shown}", where=where)


def number(name: str, value: object, *, where: str | None) -> float:
    """One real number, an int as it is; raises CanonError for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    tensor = as_tensor(name, value, where=where)
    if tensor.numel() != 1:
        raise CanonError(f"{name} is {list(tensor.shape)} numbers, not one", where=where)
    return float(tensor.reshape(()))
