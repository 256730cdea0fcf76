"""How much memory loading an SAE takes, and whether that much is free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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
    free = memory().free
    if needed > free:
        raise CanonError(
            f"{purpose} needs {size(needed)} of memory, and {size(free)} are free", where=where
        )


@dataclass(frozen=True)
class Memory:
    """Bytes of memory that this process may use, and how many of them are free."""

    total: int
    free: int


def memory(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Memory:
    """The machine's memory, or what is left of it by the limits of control groups (Slurm, Docker).

    A group's limit holds for all groups inside it, so each group above this process' is read. The
    page cache of files that nobody uses counts as free.
    """
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for limit, used in _limits(proc, root):
        total = min(total, limit)
        free = min(free, max(0, limit - used))
    return Memory(total, free)


def _limits(proc: Path, root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of every control group around this process, of version 1 and 2."""
    with suppress(OSError, ValueError):
        for line in proc.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                base, names = root, ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                base = root / "memory"
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            folder = base / path.lstrip("/")
            for group in (folder, *folder.parents):
                if group.is_relative_to(base):
                    yield from _limit(group, *names)


def _limit(group: Path, limit: str, used: str, cache: str) -> Iterator[tuple[int, int]]:
    with suppress(OSError, ValueError):  # no limit is written as "max"
        bound, use = int((group / limit).read_text()), int((group / used).read_text())
        lines = (group / "memory.stat").read_text().splitlines()
        cached = next((int(line.split()[1]) for line in lines if line.startswith(f"{cache} ")), 0)
        yield bound, max(0, use - cached)


def size(count: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
