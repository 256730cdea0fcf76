"""How much memory a load takes, and whether there is so much."""

from __future__ import annotations

import psutil

from saebench_canon.errors import CanonError

ITEM = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def sae_bytes(d: int, width: int, dtype: str = "float32") -> int:
    """Bytes of an SAE in memory while it is loaded: folded in float32 or wider, then cast."""
    entries = width * (2 * d + 4) + d
    folded = entries * max(4, ITEM[dtype])
    return folded if ITEM[dtype] >= 4 else folded + entries * ITEM[dtype]


def check_memory(needed: int, what: str, *, where: str) -> None:
    """Refuse in a sentence what is more than is free."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise CanonError(
            f"{what} takes {size(needed)} of memory, and {size(free)} are free", where=where
        )


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
