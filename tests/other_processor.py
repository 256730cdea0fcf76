"""Another processor: what torch rounds comes out a few last digits off, as other kernels do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ULPS = 3  # of a result, up or down; kernels of real processors differ by a few
BITS = {torch.float32: (torch.int32, 0x7F), torch.float64: (torch.int64, 0xFFFFF)}
ROUNDED = frozenset(
    (
        "addmm", "baddbmm", "bmm", "dot", "exp", "linalg_vector_norm", "log", "mean", "mm", "mv",
        "rsqrt", "sqrt", "std", "sum", "var", "_softmax", "_log_softmax",
    )
)  # fmt: skip


class OtherProcessor(TorchDispatchMode):
    """Inside the block, results of sums, products and roots differ by position and size.

    Results whose last digits are zeros (sums of small whole numbers, say) are exact on every
    processor and stay as they are.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._schema.name.removeprefix("aten::") in ROUNDED:
            for each in out if isinstance(out, (tuple, list)) else (out,):
                _round_otherwise(each)
        return out


def _round_otherwise(result: torch.Tensor) -> None:
    if result.dtype not in BITS or result.layout != torch.strided or not result.is_contiguous():
        return
    whole, last = BITS[result.dtype]
    bits = result.detach().view(whole)
    place = torch.arange(bits.numel(), dtype=whole).reshape(bits.shape) + 7 * bits.numel()
    steps = (place * 2_654_435 >> 5) % (2 * ULPS + 1) - ULPS
    bits += steps * ((bits & last != 0) & result.isfinite())
