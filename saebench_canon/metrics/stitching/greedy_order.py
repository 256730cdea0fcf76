"""The order of a path with the lowest error at every step (ours)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix

from saebench_canon.metrics.stitching.interpolation import Graph, Union, shared

ENTRIES = 2**27  # of K, in memory at most, 2 GiB


def greedy(
    both: Union, graph: Graph, *, limit: int = ENTRIES
) -> tuple[list[int], list[int]] | None:
    """The novel latents and the component numbers, each next one with the lowest error.

    The error is eq. 5's, biases included. It is computed from K (see `interpolation`), which is
    held in memory here; None when it would have more than `limit` entries.
    """
    gram = _gram(both, limit)
    if gram is None:
        return None
    state = _State(both, gram)
    novel = both.m0 + np.array(graph.novel, dtype=np.int64)
    first = _greedy(state, _single(novel, gram.shape[0]))
    swaps = _greedy(state, _components(graph, both, gram.shape[0]))
    return [graph.novel[index] for index in first], swaps


class _State:
    """The sums that the error consists of, for the latents present so far."""

    def __init__(self, both: Union, gram: Any) -> None:
        self.both, self.gram = both, gram
        live = both.counts > 0
        present = live.astype(float)
        present[both.m0 :] = 0
        self.live = live.astype(float)
        self.pulled = gram @ present
        self.quadratic = float(present @ self.pulled)
        self.inner = float(present @ both.inner)
        self.of_bias = float(present @ both.of_bias)
        self.small, self.large = float(present.sum()), 0.0


def _greedy(state: _State, moves: Any) -> list[int]:
    """The rows of `moves` (+1 adds, −1 removes; [moves, latents]) in the order of lowest error."""
    both, count = state.both, moves.shape[0]
    is_small = (np.arange(moves.shape[1]) < both.m0) * state.live
    is_large = state.live - is_small
    own_terms = np.asarray((moves @ state.gram).multiply(moves).sum(axis=1)).ravel()
    inner, of_bias = moves @ both.inner, moves @ both.of_bias
    n_small, n_large = moves @ is_small, moves @ is_large
    waiting = np.ones(count, dtype=bool)
    order: list[int] = []
    n = both.codes.shape[0]
    for _ in range(count):
        small, large = state.small + n_small, state.large + n_large
        with np.errstate(invalid="ignore"):
            alpha = np.where(small + large > 0, small / (small + large), 1.0)
        bias = 1 - alpha
        quadratic = state.quadratic + 2 * (moves @ state.pulled) + own_terms
        error = quadratic - 2 * (state.inner + inner) + 2 * bias * (state.of_bias + of_bias)
        error += n * bias**2 * both.gap - 2 * bias * both.lean
        best = int(np.where(waiting, error, np.inf).argmin())
        waiting[best] = False
        order.append(best)
        move = moves[best]
        state.quadratic = float(quadratic[best])
        state.inner += float(inner[best])
        state.of_bias += float(of_bias[best])
        state.small, state.large = float(small[best]), float(large[best])
        state.pulled = state.pulled + np.asarray((move @ state.gram).todense()).ravel()
    return order


def _gram(both: Union, limit: int) -> Any:
    """All of K, symmetric; None when it has more entries than the limit."""
    rows, columns, values = [], [], []
    entries = 0
    for row, column, value in shared(both):
        entries += 2 * len(row)
        if entries > limit:
            return None
        rows.append(row)
        columns.append(column)
        values.append(np.where(row == column, value / 2, value))
    size = both.codes.shape[1]
    parts = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    upper = csr_matrix(parts, shape=(size, size))
    return (upper + upper.T).tocsr()


def _single(latents: Any, width: int) -> Any:
    values = np.ones(len(latents))
    return csr_matrix((values, (np.arange(len(latents)), latents)), shape=(len(latents), width))


def _components(graph: Graph, both: Union, width: int) -> Any:
    entries = [
        (row, latent, sign)
        for row, (small, large) in enumerate(graph.components)
        for latent, sign in (
            *((latent, -1.0) for latent in small),
            *((both.m0 + latent, 1.0) for latent in large),
        )
    ]
    shape = (len(graph.components), width)
    if not entries:
        return csr_matrix(shape)
    row, column, sign = (np.array(numbers) for numbers in zip(*entries, strict=True))
    return coo_matrix((sign, (row, column)), shape=shape).tocsr()
