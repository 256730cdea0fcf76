"""How much memory loading an SAE takes, and whether that much is free."""

from __future__ import annotations

import psutil

from saebench_canon.errors import CanonError

ITEM = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def sae_bytes(d: int, width: int, dtype: str = "float32", *, stored: str = "float32") -> int:
    """Bytes of an SAE in memory while it is loaded: folded as stored or in float32, then cast."""
    entries = width * (2 * d + 4) + d
    folds_in = "float64" if stored == "float64" else "float32"
    return entries * (ITEM[folds_in] + (0 if folds_in == dtype else ITEM[dtype]))


def check_memory(needed: int, purpose: str, *, where: str) -> None:
    """Raise CanonError if a purpose needs more memory than is free."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise CanonError(
            f"{purpose} needs {size(needed)} of memory, and {size(free)} are free", where=where
        )


def size(count: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
