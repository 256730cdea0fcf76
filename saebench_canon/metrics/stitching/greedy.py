"""The order of a path that lowers the error most at every step (ours)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix

from saebench_canon.metrics.stitching.interpolation import Graph, Union, shared

ENTRIES = 2**27  # of K that may be kept, 2 GiB


def greedy(
    both: Union, found: Graph, *, limit: int = ENTRIES
) -> tuple[list[int], list[int]] | None:
    """The novel latents and the components' numbers, each time the one with the lowest error next.

    The error is eq. 5's, biases included, and the order is found on K (see `interpolation`), which
    is kept here; None when it would have more than `limit` entries.
    """
    gram = _gram(both, limit)
    if gram is None:
        return None
    state = _State(both, gram)
    novel = both.m0 + np.array(found.novel, dtype=np.int64)
    first = _greedy(state, _single(novel, gram.shape[0]))
    swaps = _greedy(state, _components(found, both, gram.shape[0]))
    return [found.novel[at] for at in first], swaps


class _State:
    """Which latents are there, and the sums that the error is made of."""

    def __init__(self, both: Union, gram: Any) -> None:
        self.both, self.gram = both, gram
        live = both.counts > 0
        there = live.astype(float)
        there[both.m0 :] = 0
        self.live = live.astype(float)
        self.pulled = gram @ there
        self.quadratic = float(there @ self.pulled)
        self.inner = float(there @ both.inner)
        self.of_bias = float(there @ both.of_bias)
        self.small, self.large = float(there.sum()), 0.0


def _greedy(state: _State, moves: Any) -> list[int]:
    """The rows of `moves` (+1 comes, −1 goes; [moves, latents]) in the order of lowest error."""
    both, count = state.both, moves.shape[0]
    is_small = (np.arange(moves.shape[1]) < both.m0) * state.live
    is_large = state.live - is_small
    own = np.asarray((moves @ state.gram).multiply(moves).sum(axis=1)).ravel()
    inner, of_bias = moves @ both.inner, moves @ both.of_bias
    few, many = moves @ is_small, moves @ is_large
    left = np.ones(count, dtype=bool)
    order: list[int] = []
    n = both.codes.shape[0]
    for _ in range(count):
        small, large = state.small + few, state.large + many
        with np.errstate(invalid="ignore"):
            alpha = np.where(small + large > 0, small / (small + large), 1.0)
        bias = 1 - alpha
        quadratic = state.quadratic + 2 * (moves @ state.pulled) + own
        error = quadratic - 2 * (state.inner + inner) + 2 * bias * (state.of_bias + of_bias)
        error += n * bias**2 * both.gap - 2 * bias * both.lean
        at = int(np.where(left, error, np.inf).argmin())
        left[at] = False
        order.append(at)
        move = moves[at]
        state.quadratic = float(quadratic[at])
        state.inner += float(inner[at])
        state.of_bias += float(of_bias[at])
        state.small, state.large = float(small[at]), float(large[at])
        state.pulled = state.pulled + np.asarray((move @ state.gram).todense()).ravel()
    return order


def _gram(both: Union, limit: int) -> Any:
    """K as a whole, symmetric; None when it has more entries than the limit."""
    rows, columns, values = [], [], []
    entries = 0
    for one, other, value in shared(both):
        entries += 2 * len(one)
        if entries > limit:
            return None
        rows.append(one)
        columns.append(other)
        values.append(np.where(one == other, value / 2, value))
    size = both.codes.shape[1]
    parts = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    upper = csr_matrix(parts, shape=(size, size))
    return (upper + upper.T).tocsr()


def _single(latents: Any, width: int) -> Any:
    ones = np.ones(len(latents))
    return csr_matrix((ones, (np.arange(len(latents)), latents)), shape=(len(latents), width))


def _components(found: Graph, both: Union, width: int) -> Any:
    entries = [
        (row, latent, sign)
        for row, (goes, comes) in enumerate(found.components)
        for latent, sign in (
            *((latent, -1.0) for latent in goes),
            *((both.m0 + latent, 1.0) for latent in comes),
        )
    ]
    shape = (len(found.components), width)
    if not entries:
        return csr_matrix(shape)
    row, column, sign = (np.array(each) for each in zip(*entries, strict=True))
    return coo_matrix((sign, (row, column)), shape=shape).tocsr()
