"""Plain float64 versions of the kernels: dense, with loops, written to be read, not to be fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment, nnls
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.shared.live_rows import live_rows

torch.set_num_threads(1)


@dataclass(frozen=True, eq=False)
class TinySAE:
    """The part of a canonical SAE that metrics read."""

    W_dec: Tensor
    b_dec: Tensor
    encoder: Tensor | None = None

    @property
    def width(self) -> int:
        return int(self.W_dec.shape[0])

    @property
    def d(self) -> int:
        return int(self.W_dec.shape[1])


def sorted_rows(rows: Tensor) -> Tensor:
    """The rows of a decoder with only live latents, in the order in which metrics read them."""
    return live_rows(TinySAE(rows, rows.new_zeros(rows.shape[1])), None).rows  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class CodedSAE:
    """An SAE with its dense codes [n, m] on some activations."""

    sae: TinySAE
    dense: Tensor

    @property
    def codes(self) -> Codes:
        return Codes.from_dense(self.dense)


def random_sae(
    x: Tensor,
    m: int,
    kind: str,
    generator: torch.Generator,
    *,
    dead: Sequence[int] = (0, 3),
    rows: Tensor | None = None,
) -> CodedSAE:
    """A random SAE whose codes are selected by ReLU, TopK, BatchTopK or JumpReLU.

    Rows had random norms, which were folded into the codes after selection; some latents are dead.
    """
    n, d = x.shape
    free = torch.randn(m, d, generator=generator, dtype=torch.float64)
    raw = free if rows is None else rows
    norms = raw.norm(dim=1)
    scales = torch.rand(m, generator=generator, dtype=torch.float64) * 3 + 0.2
    encoder = (raw / norms[:, None] + 0.3 * free / d**0.5).T
    z = x @ encoder - 0.4
    z[:, list(dead)] = -1.0
    if kind == "relu":
        codes = z.relu()
    elif kind == "topk":
        values, indices = z.topk(3, dim=1)
        codes = torch.zeros_like(z).scatter_(1, indices, values.relu())
    elif kind == "jumprelu":
        level = torch.rand(m, generator=generator, dtype=torch.float64)
        codes = torch.where(z > level, z, 0)
    else:
        least = z.flatten().topk(3 * n).values.min()
        codes = torch.where(z >= least, z, 0).relu()
    bias = torch.randn(d, generator=generator, dtype=torch.float64) * 0.3
    return CodedSAE(TinySAE(raw / norms[:, None], bias, encoder * scales), codes * scales / d**0.5)


def rebuilt(coded: CodedSAE) -> Tensor:
    return coded.dense @ coded.sae.W_dec + coded.sae.b_dec


def mse(x: Tensor, guess: Tensor) -> float:
    total = 0.0
    for t in range(x.shape[0]):
        for c in range(x.shape[1]):
            total += float(x[t, c] - guess[t, c]) ** 2
    return total / x.numel()


def live(coded: CodedSAE) -> list[int]:
    return [i for i in range(coded.dense.shape[1]) if bool((coded.dense[:, i] > 0).any())]


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def stitched(
    small: CodedSAE,
    large: CodedSAE,
    remaining: Sequence[int],
    added: Sequence[int],
    *,
    fixed_bias: bool = False,
) -> Tensor:
    """Eq. 5 literally: both biases weighted by the number of latents, all codes summed."""
    total = len(remaining) + len(added)
    alpha = 1.0 if total == 0 or fixed_bias else len(remaining) / total
    out = (alpha * small.sae.b_dec + (1 - alpha) * large.sae.b_dec).repeat(len(small.dense), 1)
    for coded, latents in ((small, remaining), (large, added)):
        for i in latents:
            out = out + coded.dense[:, i, None] * coded.sae.W_dec[i]
    return out


def max_cosines(rows: Tensor, others: Tensor) -> tuple[list[float], list[int]]:
    best, which = [], []
    for row in rows:
        cosines = [cosine(row, other) for other in others]
        best.append(max(cosines))
        which.append(cosines.index(max(cosines)))
    return best, which


def auc(low: Sequence[float], positive: Sequence[bool]) -> float:
    wins = pairs = 0.0
    for a, hit in zip(low, positive, strict=True):
        for b, other_hit in zip(low, positive, strict=True):
            if hit and not other_hit:
                pairs += 1
                wins += 1.0 if a < b else 0.5 if a == b else 0.0
    return wins / pairs


def youden(low: Sequence[float], positive: Sequence[bool], threshold: float) -> float:
    hits = [value < threshold for value, yes in zip(low, positive, strict=True) if yes]
    falls = [value < threshold for value, yes in zip(low, positive, strict=True) if not yes]
    return sum(hits) / len(hits) - sum(falls) / len(falls)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    """Numbers of the standard normal, float64."""
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


def rests(rows: Tensor, atoms: Tensor) -> Tensor:
    """The rows less what lies along their atoms."""
    return rows - (rows * atoms).sum(dim=1, keepdim=True) * atoms


def pursuit(row: Tensor, atoms: Tensor, count: int) -> list[float]:
    """Explained share of the row after each atom, by non-negative orthogonal matching pursuit."""
    return fit(row, atoms, count)[0]


def fit(row: Tensor, atoms: Tensor, count: int) -> tuple[list[float], float]:
    """Explained share of the row after each atom, and the sum of the squared weights at the end."""
    row, atoms = row.double(), atoms.double()
    target = (row / row.norm()).numpy()
    table = (atoms / atoms.norm(dim=1, keepdim=True)).numpy()
    chosen: list[int] = []
    residual, explained, weights = target, [], np.zeros(0)
    for _ in range(count):
        cosines = table @ residual
        cosines[chosen] = -np.inf
        if len(chosen) < len(table) and cosines.max() > 1e-9:
            chosen.append(int(cosines.argmax()))
            weights, _ = nnls(table[chosen].T, target)
            residual = target - weights @ table[chosen]
        explained.append(1 - float(residual @ residual))
    return explained, float(weights @ weights)


def is_sum(explained: Sequence[float], least: float, gain: float) -> bool:
    """The rule for a composed row, with a tolerance for rounding."""
    return explained[-1] > least - 1e-6 and explained[-1] - explained[0] > gain - 1e-6


def least_raised(
    least: float, gain: float, chance: float, nulls: Sequence[Sequence[Sequence[float]]]
) -> float:
    """The lowest threshold at which no null has more sums than `chance` allows."""

    def few(limit: float) -> bool:
        for null in nulls:
            count = sum(e[-1] >= limit and e[-1] - e[0] >= gain for e in null)
            if count > chance * len(null):
                return False
        return True

    levels = sorted({e[-1] for null in nulls for e in null if e[-1] >= least})
    return next(limit for limit in [least, *(value + 1e-9 for value in levels)] if few(limit))


def k_means(rows: Tensor, start: Tensor, turns: int = 25) -> tuple[Tensor, list[int]]:
    """Lloyd's algorithm on unit rows, until no row changes its cluster."""
    centres, nearest = [row.clone() for row in start], [-1] * len(rows)
    for _ in range(turns):
        before = nearest
        nearest = [max(range(len(centres)), key=lambda c: float(row @ centres[c])) for row in rows]
        if nearest == before:
            break
        for cluster in range(len(centres)):
            total = torch.zeros(rows.shape[1], dtype=torch.float64)
            for row, c in zip(rows, nearest, strict=True):
                total = total + row if c == cluster else total
            centres[cluster] = total / total.norm() if float(total.norm()) > 0 else centres[cluster]
    return torch.stack(centres), nearest


def assignment(similarity: Tensor) -> dict[int, int]:
    rows, columns = linear_sum_assignment(similarity.numpy(), maximize=True)
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True)}


def mcc(rows: Tensor, others: Tensor, *, absolute: bool = False) -> float:
    table = torch.tensor([[cosine(a, b) for b in others] for a in rows], dtype=torch.float64)
    table = table.abs() if absolute else table
    pairs = assignment(table)
    return sum(float(table[i, j]) for i, j in pairs.items()) / min(len(rows), len(others))


def correlation(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else 0.0


def ratio_by_documents(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    value, count = sum(a) / sum(b), len(a)
    spread = sum((x - value * y) ** 2 for x, y in zip(a, b, strict=True))
    return value, math.sqrt(count / (count - 1) * spread) / sum(b)
