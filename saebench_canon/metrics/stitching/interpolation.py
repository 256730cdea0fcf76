"""From the small SAE to the large one, a few latents at a time (Leask et al. 2025, Fig. 3, 5, A.4).

The squared error of a stitched SAE is a quadratic form in the indicator of its latents. With F the
codes of both SAEs side by side and W their rows, `K = (FᵀF) ∘ (W Wᵀ)` holds what any two latents
have in common on the data, and a path of any length is arithmetic on the entries of K: each counts
from the step at which the later of its two latents comes to that at which the earlier goes. K is
made a block of rows at a time and never kept, so many paths cost little more than one.
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
from saebench_canon.metrics.stitching.gains import row_dots, share_of_small
from saebench_canon.progress import track

Phase = Literal["start", "novel", "swap", "orphans"]
BLOCK = 2**22  # entries of a dense block of W Wᵀ held at once, 32 MiB in float64
CROWDED = 0.05  # density of the codes from which a dense product is faster
DENSE = 2**24  # codes held densely at once, 64 MiB
HEAVY = 64  # latents whose products are taken in float64
MEAN = 8192  # rows or tokens summed at once
SLICES = 64  # blocks of K that share one slice of the codes
EDGES = 2**24  # cosines held at once while edges are looked for


@dataclass(frozen=True)
class Step:
    """What one step of a path does: large latents that come, small ones that go."""

    phase: Phase
    latents_in: tuple[int, ...] = ()
    latents_out: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Path:
    """The stitched SAE after every step: `mse` [steps + 1] and `l0` [steps + 1], step 0 first."""

    steps: tuple[Step, ...]
    mse: Tensor
    l0: Tensor


@dataclass(frozen=True)
class Graph:
    """The live latents of both SAEs, joined where their cosine is θ or more (Fig. 3).

    `novel` are large latents and `orphans` small ones without a neighbour; each of `components`
    is a set of small latents and the set of large ones that they give way to.
    """

    novel: tuple[int, ...]
    orphans: tuple[int, ...]
    components: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


def graph(rows0: Tensor, rows1: Tensor, live0: Tensor, live1: Tensor, threshold: float) -> Graph:
    """The graph of live rows [m0, d] and [m1, d], its components by their least small latent."""
    small, large = live0.nonzero()[:, 0].cpu(), live1.nonzero()[:, 0].cpu()
    left, right = normalised(rows0[live0]), normalised(rows1[live1]).to(rows0.dtype)
    found: list[Tensor] = []
    height = max(1, EDGES // max(1, len(right)))
    for start in range(0, len(left), height):
        near = tied((left[start : start + height] @ right.T).double()) >= threshold
        found.append(near.nonzero().cpu() + torch.tensor([start, 0]))
    edges = torch.cat(found).numpy() if found else np.zeros((0, 2), dtype=np.int64)
    m0, m1 = len(small), len(large)
    joined = coo_matrix(
        (np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1] + m0)), shape=(m0 + m1, m0 + m1)
    )
    _, label = connected_components(joined, directed=False)
    members: dict[int, tuple[list[int], list[int]]] = {}
    for place, name in enumerate(label):
        of_small, of_large = members.setdefault(int(name), ([], []))
        if place < m0:
            of_small.append(int(small[place]))
        else:
            of_large.append(int(large[place - m0]))
    sides = list(members.values())
    return Graph(
        novel=tuple(each[0] for below, each in sides if not below),
        orphans=tuple(sorted(each[0] for each, above in sides if not above)),
        components=tuple((tuple(a), tuple(b)) for a, b in sides if a and b),
    )


def random_order(found: Graph, seed: int, number: int) -> tuple[list[int], list[int]]:
    """Novel latents and the numbers of the components, in the seed's random order of a number."""
    chance = random.Random(f"stitching {seed} {number}")
    novel, swaps = list(found.novel), list(range(len(found.components)))
    chance.shuffle(novel)
    chance.shuffle(swaps)
    return novel, swaps


def steps_of(found: Graph, novel: Sequence[int], swaps: Sequence[int]) -> tuple[Step, ...]:
    """A path's steps: novel latents one at a time, components one at a time, orphans at once.

    `novel` are the novel latents and `swaps` the numbers of the components, each in their order.
    """
    steps = [Step("novel", (latent,)) for latent in novel]
    steps += [Step("swap", found.components[at][1], found.components[at][0]) for at in swaps]
    if found.orphans:
        steps.append(Step("orphans", (), found.orphans))
    return tuple(steps)


@dataclass(frozen=True, eq=False)
class Union:
    """Both SAEs' latents side by side, the small one's first, and what their errors are made of.

    Activations are taken from their mean while they are summed, so that a massive one does not eat
    the digits, and then from the small SAE's bias: x stands for x − b0. `codes` [n, m0 + m1];
    `rows` [m0 + m1, d]; `inner` Σ f x·w of each latent; `of_bias` Σ f w·(b1 − b0); `square` Σ‖x‖²;
    `lean` Σ x·(b1 − b0); `gap` ‖b1 − b0‖²; `heavy` the latents of the largest codes, in order.
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
    parts = chunks(x, codes0, codes1, what="what latents add", dtype=dtype)
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
        codes=_beside(codes0, codes1),
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


def paths(both: Union, many: Sequence[tuple[Step, ...]], *, block: int = BLOCK) -> list[Path]:
    """The MSE and L0 of the stitched SAE (eq. 5) after every step of each path, exactly.

    Every path begins with the live small latents and ends wherever its steps lead.
    """
    spans = [_span(both, steps) for steps in many]
    quadratic = [np.zeros(len(steps) + 2) for steps in many]
    for one, other, value in shared(both, block=block):
        value = np.where(other > one, 2 * value, value)
        for (comes, goes), sums in zip(spans, quadratic, strict=True):
            _count(one, other, value, comes, goes, sums)
    return [
        _path(both, steps, span, sums.cumsum()[:-1])
        for steps, span, sums in zip(many, spans, quadratic, strict=True)
    ]


def shared(both: Union, *, block: int = BLOCK) -> Iterator[tuple[Any, Any, Any]]:
    """The entries of K on and above its diagonal, a block of rows at a time: row, column, value.

    FᵀF is a sparse product where few latents are active on a token, and a dense one, a chunk of
    tokens at a time, where a token has more than a twentieth of them: the sparse one grows with the
    square of their number. What the latents of the largest codes share is found in float64: one
    that carries a massive mean would otherwise eat the digits of all others.
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
        one = np.repeat(np.arange(start, stop), np.diff(product.indptr))
        other = product.indices.astype(np.int64) + (start if crowded else cut)
        upper = other >= one
        one, other = one[upper], other[upper]
        cosines = (both.rows[start:stop] @ both.rows[start:].T).astype(np.float64)
        _lay_over(cosines, exact, heavy, start, stop)
        yield one, other, product.data[upper] * cosines[one - start, other - start]


def _products(rows: Any, heavy: Any, height: int = 8192) -> Any:
    """Inner products of some rows with all, [heavy, m] float64."""
    few = rows[heavy].astype(np.float64)
    parts = range(0, len(rows), height)
    return np.hstack([few @ rows[at : at + height].astype(np.float64).T for at in parts])


def _lay_over(table: Any, exact: Any, heavy: Any, start: int, stop: int) -> None:
    """Put exact entries in place of rows start … stop, columns from start on, where there are."""
    after = heavy >= start
    table[:, heavy[after] - start] = exact[after, start:stop].T
    within = after & (heavy < stop)
    table[heavy[within] - start] = exact[within, start:]


def _dense_product(codes: Any, start: int, stop: int, dtype: Any) -> Any:
    """Rows start to stop of FᵀF from column start on, [stop − start, m − start] float64."""
    n, width = codes.shape
    size = max(1, DENSE // width)
    total = np.zeros((stop - start, width - start))
    for first in range(0, n, size):
        chunk = codes[first : first + size, start:].toarray().astype(dtype)
        total += chunk[:, : stop - start].T @ chunk
    return total


def _count(one: Any, other: Any, value: Any, comes: Any, goes: Any, sums: Any) -> None:
    """Add every entry of K to the steps during which both of its latents are there."""
    begin = np.maximum(comes[one], comes[other])
    end = np.minimum(goes[one], goes[other])
    there = begin < end
    sums += np.bincount(begin[there], value[there], len(sums))
    sums -= np.bincount(end[there], value[there], len(sums))


def _span(both: Union, steps: Sequence[Step]) -> tuple[Any, Any]:
    """At which step each latent comes and at which it goes, [m0 + m1] each; never is the last."""
    never = len(steps) + 1
    comes = np.full(both.codes.shape[1], never, dtype=np.int64)
    goes = comes.copy()
    comes[: both.m0] = 0
    for at, step in enumerate(steps, start=1):
        comes[[both.m0 + latent for latent in step.latents_in]] = at
        goes[list(step.latents_out)] = at
    comes[both.counts == 0] = never
    return comes, goes


def _path(both: Union, steps: tuple[Step, ...], span: tuple[Any, Any], quadratic: Any) -> Path:
    comes, goes = span
    length = len(steps) + 2
    n = both.codes.shape[0]

    def there(values: Any) -> Any:
        """The sum over the latents present after each step."""
        sums = np.bincount(comes, values, length) - np.bincount(goes, values, length)
        return sums.cumsum()[:-1]

    m0 = both.m0
    is_small = np.arange(len(comes)) < m0
    few, many = there(is_small.astype(float)), there((~is_small).astype(float))
    alpha = np.array([share_of_small(round(a), round(b)) for a, b in zip(few, many, strict=True)])
    bias = 1 - alpha  # of b1 − b0
    error = both.square - 2 * bias * both.lean + n * bias**2 * both.gap
    error = error - 2 * there(both.inner) + 2 * bias * there(both.of_bias) + quadratic
    return Path(
        steps=steps,
        mse=torch.from_numpy(error / (n * both.d)).clamp(min=0),
        l0=torch.from_numpy(there(both.counts.astype(float)) / n),
    )


def _beside(codes0: Codes, codes1: Codes) -> Any:
    """The codes of both SAEs as one sparse matrix [n, m0 + m1]."""
    tokens = torch.cat([codes0.token_ids(), codes1.token_ids()]).cpu().numpy()
    latents = torch.cat([codes0.indices.long(), codes1.indices.long() + codes0.width])
    values = torch.cat([codes0.values.double(), codes1.values.double()]).cpu().numpy()
    shape = (len(codes0), codes0.width + codes1.width)
    return csr_matrix((values, (tokens, latents.cpu().numpy())), shape=shape)
