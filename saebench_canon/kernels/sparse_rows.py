"""Sums and products that touch only the entries of a sparse matrix of codes, in compressed rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saebench_canon.kernels.top_k import Ids

SORTS_FAST = 2**16  # numbers below it sort in linear time


def pointers(groups: Ids, count: int) -> tuple[Tensor, Tensor]:
    """Where each of `count` groups of sorted entries starts, and which groups have entries."""
    sizes = np.bincount(groups, minlength=count)
    starts = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    return torch.from_numpy(starts), torch.from_numpy(sizes > 0)


def sums(sources: Tensor, table: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of the table's rows, one for the sources between each two pointers."""
    totals: Tensor = torch.embedding_bag(table, sources, starts[:-1], False, 0, False, weights)[0]
    return totals


def dots(left: Tensor, right: Tensor, starts: Tensor, columns: Tensor, spare: Tensor) -> Tensor:
    """The entries of `left rightᵀ` at the columns of each row, which start at the pointers.

    `spare` is any vector as long as the columns.
    """
    shape = len(left), len(right)
    entries = torch.sparse_csr_tensor(starts, columns, spare, shape, check_invariants=False)
    sampled: Tensor = torch.sparse.sampled_addmm(entries, left, right.T, beta=0.0)
    return sampled.values()


def order_of(ids: Ids, count: int) -> Ids:
    """The stable order that brings equal ids together; all are below `count`."""
    key: NDArray[Any] = ids.astype(np.uint16) if count <= SORTS_FAST else ids
    return np.argsort(key, kind="stable")
