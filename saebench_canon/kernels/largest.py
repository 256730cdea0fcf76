"""The largest of many numbers on a CPU, without a sort: a bound from below, then an exact cut.

numpy compares, finds and partitions some thousand numbers several times as fast as torch does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

PARTITIONED = 2048  # numbers up to which one partition of all is fastest
CHUNK = 2**18  # numbers compared at once, so that the answers stay in the cache
GROUPS = 4  # groups of a row for each number wanted of it, whose maxima bound the cut
GROUP = 8  # least numbers in a group for which that beats a partition of the row


def candidates(flat: NDArray[Any], wanted: int, floor: float) -> tuple[Ids, NDArray[Any], float]:
    """Where the largest positive numbers may be, what they are, and the least of those wanted.

    `floor` is a guess from below at the least; a guess too high costs only time.
    """
    place = where(flat, floor) if floor > 0 else np.empty(0, dtype=np.int64)
    if len(place) < min(wanted, len(flat)):
        place = where(flat, np.finfo(flat.dtype).smallest_subnormal)
    value = flat.take(place)
    if len(value) == 0:
        return place, value, 0.0
    at = max(len(value) - wanted, 0)
    return place, value, float(np.partition(value, at)[at])


def least(flat: NDArray[Any], wanted: int, floor: float) -> float:
    """The least of the largest positive numbers that are wanted; 0 where none is positive."""
    if wanted < len(flat) <= PARTITIONED:
        at = len(flat) - wanted
        low = float(np.partition(flat, at)[at])
        if low > 0:
            return low
    return candidates(flat, wanted, floor)[2]


def where(flat: NDArray[Any], bound: float) -> Ids:
    """Where the numbers are not below the bound."""
    if len(flat) <= CHUNK:
        return np.flatnonzero(flat >= bound)
    starts = range(0, len(flat), CHUNK)
    parts = [np.flatnonzero(flat[start : start + CHUNK] >= bound) + start for start in starts]
    return np.concatenate(parts)


def of_rows(table: NDArray[Any], k: int) -> Ids:
    """Where the k largest numbers of each row [n, m] are, if positive, in order; ties stay in."""
    n, m = table.shape
    tiny = np.finfo(table.dtype).smallest_subnormal
    groups = GROUPS * k
    each = m // groups
    if each < GROUP:
        low = np.partition(table, m - k, axis=1)[:, m - k : m - k + 1]
        return np.flatnonzero(table >= np.maximum(low, tiny))
    # k groups have a maximum not below the bound, so k numbers of the row are not below it
    maxima = _maxima(table, groups, each)
    bound = np.partition(maxima, groups - k, axis=1)[:, groups - k : groups - k + 1]
    place = np.flatnonzero(table >= np.maximum(bound, tiny))
    value, row = table.reshape(-1).take(place), place // m
    sizes = np.bincount(row, minlength=n)
    starts = np.cumsum(sizes) - sizes
    few = np.full((n, max(int(sizes.max()), k)), -np.inf, dtype=table.dtype)
    few[row, np.arange(len(place)) - starts.take(row)] = value
    at = few.shape[1] - k
    low = np.partition(few, at, axis=1)[:, at]
    return place.take(np.flatnonzero(value >= low.take(row)))


def _maxima(table: NDArray[Any], groups: int, each: int) -> NDArray[Any]:
    """The maxima [n, groups] of so many groups of each row's numbers."""
    import torch

    whole = torch.from_numpy(table[:, : groups * each])
    maxima: NDArray[Any] = whole.view(len(table), each, groups).amax(dim=1).numpy()
    return maxima
