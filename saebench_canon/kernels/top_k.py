"""The largest of many numbers on a CPU, without a sort: a lower bound first, then an exact cut.

numpy compares, finds and partitions a few thousand numbers several times as fast as torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

PARTITIONED = 2048  # numbers up to which one partition of all is fastest
CHUNK = 2**18  # numbers compared at once, so that the results stay in the cache
GROUPS = 4  # groups of a row for each number to be found in it; their maxima bound the cut
GROUP = 8  # numbers in a group from which groups are faster than a partition of the row


def candidates(flat: NDArray[Any], count: int, floor: float) -> tuple[Ids, NDArray[Any], float]:
    """Candidates for the `count` largest positive numbers: indices, values, and the least chosen.

    `floor` is a lower guess at the least; a guess too high only costs time.
    """
    index = where(flat, floor) if floor > 0 else np.empty(0, dtype=np.int64)
    if len(index) < min(count, len(flat)):
        index = where(flat, np.finfo(flat.dtype).smallest_subnormal)
    value = flat.take(index)
    if len(value) == 0:
        return index, value, 0.0
    cut = max(len(value) - count, 0)
    return index, value, float(np.partition(value, cut)[cut])


def least(flat: NDArray[Any], count: int, floor: float) -> float:
    """The least of the `count` largest positive numbers; 0 where none is positive."""
    if count < len(flat) <= PARTITIONED:
        cut = len(flat) - count
        low = float(np.partition(flat, cut)[cut])
        if low > 0:
            return low
    return candidates(flat, count, floor)[2]


def where(flat: NDArray[Any], bound: float) -> Ids:
    """Where the numbers are not below the bound."""
    if len(flat) <= CHUNK:
        return np.flatnonzero(flat >= bound)
    starts = range(0, len(flat), CHUNK)
    parts = [np.flatnonzero(flat[start : start + CHUNK] >= bound) + start for start in starts]
    return np.concatenate(parts)


def of_rows(table: NDArray[Any], k: int) -> Ids:
    """Indices of each row's k largest positive numbers [n, m], in order, ties included."""
    n, m = table.shape
    tiny = np.finfo(table.dtype).smallest_subnormal
    groups = GROUPS * k
    size = m // groups
    if size < GROUP:
        low = np.partition(table, m - k, axis=1)[:, m - k : m - k + 1]
        return np.flatnonzero(table >= np.maximum(low, tiny))
    # k groups have a maximum not below the bound, so k numbers of the row are not below it
    maxima = _maxima(table, groups, size)
    bound = np.partition(maxima, groups - k, axis=1)[:, groups - k : groups - k + 1]
    index = np.flatnonzero(table >= np.maximum(bound, tiny))
    value, row = table.reshape(-1).take(index), index // m
    sizes = np.bincount(row, minlength=n)
    starts = np.cumsum(sizes) - sizes
    few = np.full((n, max(int(sizes.max()), k)), -np.inf, dtype=table.dtype)
    few[row, np.arange(len(index)) - starts.take(row)] = value
    cut = few.shape[1] - k
    low = np.partition(few, cut, axis=1)[:, cut]
    return index.take(np.flatnonzero(value >= low.take(row)))


def _maxima(table: NDArray[Any], groups: int, size: int) -> NDArray[Any]:
    """The maxima [n, groups] of each row's numbers in groups of a size."""
    import torch

    grouped = torch.from_numpy(table[:, : groups * size])
    maxima: NDArray[Any] = grouped.view(len(table), size, groups).amax(dim=1).numpy()
    return maxima
