"""Numbers mapped from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.saes.weights.lazy_tensor import SIZES

if TYPE_CHECKING:
    from torch import Tensor


def mapped(path: Path, dtype: str, start: int, count: int) -> Tensor:
    """`count` numbers of a file from byte `start` on, [count]; writing does not change the file."""
    import numpy as np
    import torch

    torch_dtype = getattr(torch, dtype)
    if count == 0:
        return torch.empty(0, dtype=torch_dtype)
    if start < 0 or start + count * SIZES[dtype] > path.stat().st_size:
        raise CanonError("the file ends before its numbers do", where=str(path))
    stored = "uint16" if dtype == "bfloat16" else dtype
    numbers = torch.from_numpy(np.memmap(path, stored, mode="c", offset=start, shape=(count,)))
    return numbers.view(torch_dtype) if dtype == "bfloat16" else numbers
