"""From the small SAE to the large one, a few latents at a time (Leask et al. 2025, Fig. 3, 5, A.4).

The squared error of a stitched SAE is a quadratic form in the indicator of its latents. With F the
codes of both SAEs side by side and W their rows, `K = (FᵀF) ∘ (W Wᵀ)` holds what any two latents
share on the data. A path of any length is arithmetic on the entries of K: each entry counts from
the step that adds the later of its two latents to the step that removes the earlier. K is computed
a block of rows at a time and never stored, so many paths cost little more than one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import normalised, tied
from saebench_canon.kernels.reconstruction import chunks
from saebench_canon.metrics.stitching.adding import row_dots, share_of_small
from saebench_canon.progress import track

Phase = Literal["start", "novel", "swap", "orphans"]
BLOCK = 2**22  # entries of a dense block of W Wᵀ in memory, 32 MiB in float64
CROWDED = 0.05  # density of the codes from which a dense product is faster
DENSE = 2**24  # dense codes in memory at once, 64 MiB
HEAVY = 64  # latents whose products are computed in float64
MEAN = 8192  # rows or tokens summed at once
SLICES = 64  # blocks of K that share one slice of the codes
EDGES = 2**24  # cosines in memory at once in the search for edges


@dataclass(frozen=True)
class PathStep:
    """One step of a path: the large latents it adds and the small latents it removes."""

    phase: Phase
    latents_in: tuple[int, ...] = ()
    latents_out: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Path:
    """The stitched SAE after every step: `mse` [steps + 1] and `l0` [steps + 1], step 0 first."""

    steps: tuple[PathStep, ...]
    mse: Tensor
    l0: Tensor


@dataclass(frozen=True)
class Graph:
    """The live latents of both SAEs, joined where their cosine is θ or more (Fig. 3).

    `novel` are large latents and `orphans` small ones without a neighbour. Each of `components`
    is a set of small latents and the set of large ones that replaces it.
    """

    novel: tuple[int, ...]
    orphans: tuple[int, ...]
    components: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


def build_graph(
    rows0: Tensor, rows1: Tensor, live0: Tensor, live1: Tensor, threshold: float
) -> Graph:
    """The graph of live rows [m0, d] and [m1, d], with components ordered by their first latent."""
    small, large = live0.nonzero()[:, 0].cpu(), live1.nonzero()[:, 0].cpu()
    unit0, unit1 = normalised(rows0[live0]), normalised(rows1[live1]).to(rows0.dtype)
    blocks: list[Tensor] = []
    height = max(1, EDGES // max(1, len(unit1)))
    for start in range(0, len(unit0), height):
        near = tied((unit0[start : start + height] @ unit1.T).double()) >= threshold
        blocks.append(near.nonzero().cpu() + torch.tensor([start, 0]))
    edges = torch.cat(blocks).numpy() if blocks else np.zeros((0, 2), dtype=np.int64)
    m0, m1 = len(small), len(large)
    joined = coo_matrix(
        (np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1] + m0)), shape=(m0 + m1, m0 + m1)
    )
    _, label = connected_components(joined, directed=False)
    sides_of: dict[int, tuple[list[int], list[int]]] = {}
    for node, component in enumerate(label):
        of_small, of_large = sides_of.setdefault(int(component), ([], []))
        if node < m0:
            of_small.append(int(small[node]))
        else:
            of_large.append(int(large[node - m0]))
    sides = list(sides_of.values())
    return Graph(
        novel=tuple(above[0] for below, above in sides if not below),
        orphans=tuple(sorted(below[0] for below, above in sides if not above)),
        components=tuple((tuple(below), tuple(above)) for below, above in sides if below and above),
    )


def random_order(graph: Graph, seed: int, number: int) -> tuple[list[int], list[int]]:
    """Novel latents and component numbers, in the random order with this number under the seed."""
    shuffler = random.Random(f"stitching {seed} {number}")
    novel, swaps = list(graph.novel), list(range(len(graph.components)))
    shuffler.shuffle(novel)
    shuffler.shuffle(swaps)
    return novel, swaps


def steps_of(graph: Graph, novel: Sequence[int], swaps: Sequence[int]) -> tuple[PathStep, ...]:
    """A path's steps: novel latents one at a time, components one at a time, orphans at once.

    `novel` are the novel latents and `swaps` the component numbers, both in the order of the path.
    """
    steps = [PathStep("novel", (latent,)) for latent in novel]
    for number in swaps:
        below, above = graph.components[number]
        steps.append(PathStep("swap", above, below))
    if graph.orphans:
        steps.append(PathStep("orphans", (), graph.orphans))
    return tuple(steps)


@dataclass(frozen=True, eq=False)
class Union:
    """Both SAEs' latents side by side, the small SAE's first, and the terms of their errors.

    While activations are summed their mean is subtracted, so that a massive activation costs no
    digits; after that x stands for x − b0, with the small SAE's bias. `codes` [n, m0 + m1]; `rows`
    [m0 + m1, d]; `inner` Σ f x·w of each latent; `of_bias` Σ f w·(b1 − b0); `square` Σ‖x‖²; `lean`
    Σ x·(b1 − b0); `gap` ‖b1 − b0‖²; `heavy` the latents of the largest codes, in order.
    """

    codes: Any  # scipy.sparse.csr_matrix
    rows: np.ndarray[Any, Any]
    m0: int
    d: int
    inner: np.ndarray[Any, Any]
    of_bias: np.ndarray[Any, Any]
    counts: np.ndarray[Any, Any]
    square: float
    lean: float
    gap: float
    heavy: np.ndarray[Any, Any]


def union(
    x: Tensor, small: tuple[Codes, Tensor, Tensor], large: tuple[Codes, Tensor, Tensor]
) -> Union:
    """One pass over x [n, d] with both SAEs' codes, decoder rows [m, d] and biases [d]."""
    (codes0, rows0, bias0), (codes1, rows1, bias1) = small, large
    dtype = torch.promote_types(torch.promote_types(rows0.dtype, rows1.dtype), torch.float32)
    rows0, rows1 = rows0.to(dtype), rows1.to(dtype)
    shift = bias1.double() - bias0.double()
    reference = _mean(x).to(rows0.device).to(dtype)
    below = bias0.double() - reference.double()  # the small SAE's bias, from the reference
    total = shift.new_zeros(len(shift))
    inner0, inner1 = shift.new_zeros(len(rows0)), shift.new_zeros(len(rows1))
    square = 0.0
    parts = chunks(x, codes0, codes1, title="what latents add", dtype=dtype)
    for _, true, (active0, active1) in parts:
        true = true - reference
        inner0 += row_dots(active0.transposed_matmul(true), rows0)
        inner1 += row_dots(active1.transposed_matmul(true), rows1)
        total += true.sum(dim=0, dtype=torch.float64)
        square += float(torch.linalg.vector_norm(true, dim=1).double().square().sum())
    rows = torch.cat([rows0, rows1])
    mass = torch.cat([codes0.column_sums(1), codes1.column_sums(1)]).to(rows.device)
    second = torch.cat([codes0.column_sums(2), codes1.column_sums(2)])
    inner = torch.cat([inner0, inner1]) - mass * _dots(rows, below)
    heavy = second.topk(min(HEAVY, len(second))).indices.sort().values.cpu()
    return Union(
        codes=_side_by_side(codes0, codes1),
        rows=rows.cpu().numpy(),
        m0=len(rows0),
        d=rows.shape[1],
        inner=inner.cpu().numpy(),
        of_bias=(mass * _dots(rows, shift)).cpu().numpy(),
        counts=torch.cat([codes0.counts, codes1.counts]).cpu().numpy(),
        square=square - 2 * float(below @ total) + len(x) * float(below @ below),
        lean=float(total @ shift) - len(x) * float(below @ shift),
        gap=float(shift @ shift),
        heavy=heavy.numpy(),
    )


def _mean(x: Tensor) -> Tensor:
    """The mean activation [d], in float64."""
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    for part in torch.split(x, MEAN):
        total += part.sum(dim=0, dtype=torch.float64).cpu()
    return total / len(x)


def _dots(rows: Tensor, vector: Tensor) -> Tensor:
    """Inner products of rows [m, d] with a float64 vector [d], some rows at a time; [m] float64."""
    return torch.cat([part.double() @ vector for part in torch.split(rows, MEAN)])


def paths(
    both: Union, step_lists: Sequence[tuple[PathStep, ...]], *, block: int = BLOCK
) -> list[Path]:
    """The MSE and L0 of the stitched SAE (eq. 5) after every step of each path, exactly.

    Every path begins with the live small latents.
    """
    spans = [_span(both, steps) for steps in step_lists]
    quadratic = [np.zeros(len(steps) + 2) for steps in step_lists]
    for row, column, value in shared(both, block=block):
        value = np.where(column > row, 2 * value, value)
        for (enters, leaves), sums in zip(spans, quadratic, strict=True):
            _count(row, column, value, enters, leaves, sums)
    return [
        _path(both, steps, span, sums.cumsum()[:-1])
        for steps, span, sums in zip(step_lists, spans, quadratic, strict=True)
    ]


def shared(both: Union, *, block: int = BLOCK) -> Iterator[tuple[Any, Any, Any]]:
    """The entries of K on and above its diagonal, a block of rows at a time: row, column, value.

    FᵀF is a sparse product where few latents are active on a token. Where more than a twentieth of
    them are, it is a dense product, a chunk of tokens at a time, because the cost of the sparse one
    grows with the square of their number. Products with the latents of the largest codes are in
    float64: a latent that carries a massive mean would otherwise cost the others their digits.
    """
    n, width = both.codes.shape
    crowded = both.codes.nnz > CROWDED * n * width
    turned = both.codes.T.tocsr()
    height = max(1, block // max(1, width))
    heavy = both.heavy
    exact = _products(both.rows, heavy)  # [heavy, m]
    often = (turned[heavy] @ both.codes).toarray() if crowded else None
    starts = range(0, width, height)
    for start in track(starts, "what latents share", len(starts)):
        stop = min(start + height, width)
        if crowded:
            dense = _dense_product(both.codes, start, stop, both.rows.dtype)
            _lay_over(dense, often, heavy, start, stop)
            product = csr_matrix(dense)
        else:
            if (start // height) % SLICES == 0:
                rest, cut = both.codes[:, start:], start
            product = (turned[start:stop] @ rest).tocsr()
        row = np.repeat(np.arange(start, stop), np.diff(product.indptr))
        column = product.indices.astype(np.int64) + (start if crowded else cut)
        upper = column >= row
        row, column = row[upper], column[upper]
        cosines = (both.rows[start:stop] @ both.rows[start:].T).astype(np.float64)
        _lay_over(cosines, exact, heavy, start, stop)
        yield row, column, product.data[upper] * cosines[row - start, column - start]


def _products(rows: Any, heavy: Any, height: int = 8192) -> Any:
    """Inner products of some rows with all, [heavy, m] float64."""
    heavy_rows = rows[heavy].astype(np.float64)
    parts = range(0, len(rows), height)
    return np.hstack(
        [heavy_rows @ rows[start : start + height].astype(np.float64).T for start in parts]
    )


def _lay_over(table: Any, exact: Any, heavy: Any, start: int, stop: int) -> None:
    """Replace entries of rows start … stop, columns from start on, by the exact ones of `heavy`."""
    after = heavy >= start
    table[:, heavy[after] - start] = exact[after, start:stop].T
    within = after & (heavy < stop)
    table[heavy[within] - start] = exact[within, start:]


def _dense_product(codes: Any, start: int, stop: int, dtype: Any) -> Any:
    """Rows start … stop of FᵀF, columns from start on, [stop − start, m − start] float64."""
    n, width = codes.shape
    size = max(1, DENSE // width)
    total = np.zeros((stop - start, width - start))
    for first in range(0, n, size):
        chunk = codes[first : first + size, start:].toarray().astype(dtype)
        total += chunk[:, : stop - start].T @ chunk
    return total


def _count(row: Any, column: Any, value: Any, enters: Any, leaves: Any, sums: Any) -> None:
    """Add every entry of K to the steps at which both of its latents are present."""
    begin = np.maximum(enters[row], enters[column])
    end = np.minimum(leaves[row], leaves[column])
    present = begin < end
    sums += np.bincount(begin[present], value[present], len(sums))
    sums -= np.bincount(end[present], value[present], len(sums))


def _span(both: Union, steps: Sequence[PathStep]) -> tuple[Any, Any]:
    """The step that adds each latent and the step that removes it, [m0 + m1] each.

    A latent that is never added or removed has the number after the last step.
    """
    never = len(steps) + 1
    enters = np.full(both.codes.shape[1], never, dtype=np.int64)
    leaves = enters.copy()
    enters[: both.m0] = 0
    for number, step in enumerate(steps, start=1):
        enters[[both.m0 + latent for latent in step.latents_in]] = number
        leaves[list(step.latents_out)] = number
    enters[both.counts == 0] = never
    return enters, leaves


def _path(both: Union, steps: tuple[PathStep, ...], span: tuple[Any, Any], quadratic: Any) -> Path:
    enters, leaves = span
    length = len(steps) + 2
    n = both.codes.shape[0]

    def sum_present(values: Any) -> Any:
        """The sum over the latents present after each step."""
        sums = np.bincount(enters, values, length) - np.bincount(leaves, values, length)
        return sums.cumsum()[:-1]

    m0 = both.m0
    is_small = np.arange(len(enters)) < m0
    n_small, n_large = sum_present(is_small.astype(float)), sum_present((~is_small).astype(float))
    alpha = np.array(
        [share_of_small(round(a), round(b)) for a, b in zip(n_small, n_large, strict=True)]
    )
    bias = 1 - alpha  # of b1 − b0
    error = both.square - 2 * bias * both.lean + n * bias**2 * both.gap
    error = error - 2 * sum_present(both.inner) + 2 * bias * sum_present(both.of_bias) + quadratic
    return Path(
        steps=steps,
        mse=torch.from_numpy(error / (n * both.d)).clamp(min=0),
        l0=torch.from_numpy(sum_present(both.counts.astype(float)) / n),
    )


def _side_by_side(codes0: Codes, codes1: Codes) -> Any:
    """The codes of both SAEs as one sparse matrix [n, m0 + m1]."""
    tokens = torch.cat([codes0.token_ids(), codes1.token_ids()]).cpu().numpy()
    latents = torch.cat([codes0.indices.long(), codes1.indices.long() + codes0.width])
    values = torch.cat([codes0.values.double(), codes1.values.double()]).cpu().numpy()
    shape = (len(codes0), codes0.width + codes1.width)
    return csr_matrix((values, (tokens, latents.cpu().numpy())), shape=shape)
