"""What two latents' codes have in common over tokens, by sparse products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes

BLOCK = 1024  # latents of the first SAE at a time
CONSTANT = 1e-12  # variance, as a share of the mean square, up to which codes count as constant


def products(first: Codes, second: Codes) -> Iterator[tuple[slice, Tensor]]:
    """Sums over tokens of products of two SAEs' codes, float64, a block [b, m2] of rows at a time.

    Codes that name a latent twice on a token add up.
    """
    columns, theirs = table(first).T.tocsr(), table(second)
    for start in range(0, first.width, BLOCK):
        part = slice(start, min(start + BLOCK, first.width))
        yield part, torch.from_numpy((columns[part] @ theirs).toarray())


def table(codes: Codes) -> Any:
    """The codes as a sparse matrix of scipy [n, m], float64."""
    from scipy.sparse import csr_matrix

    indices, indptr = codes.indices.cpu().numpy(), codes.indptr.cpu().numpy()
    values = codes.values.double().cpu().numpy().copy()
    matrix = csr_matrix((values, indices.copy(), indptr), shape=(len(codes), codes.width))
    matrix.sum_duplicates()
    return matrix


def correlations_of(first: Codes, second: Codes, ours: Tensor, theirs: Tensor) -> Tensor:
    """Pearson correlation over tokens of pairs of latents, `ours` [p] and `theirs` [p] by number.

    Returns [p] float64; a latent that never varies correlates 0.
    """
    n, p = len(first), len(ours)
    cross = torch.zeros(p, dtype=torch.float64)
    compared = first.keep(_mask(ours, first.width)), second.keep(_mask(theirs, second.width))
    for part, block in products(*compared):
        inside = (ours >= part.start) & (ours < part.stop)
        cross[inside] = block[ours[inside] - part.start, theirs[inside]]
    mean, square = _moments(first, ours)
    other_mean, other_square = _moments(second, theirs)
    variance, other_variance = square - mean**2, other_square - other_mean**2
    varies = (variance > CONSTANT * square) & (other_variance > CONSTANT * other_square)
    scale = (variance.clamp(min=0) * other_variance.clamp(min=0)).sqrt()
    return torch.where(varies, (cross / n - mean * other_mean) / torch.where(varies, scale, 1), 0)


def _mask(latents: Tensor, width: int) -> Tensor:
    mask = torch.zeros(width, dtype=torch.bool)
    mask[latents] = True
    return mask


def _moments(codes: Codes, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean square of latents' codes, [p] each."""
    added = table(codes)
    squares = torch.zeros(codes.width, dtype=torch.float64)
    squares.index_add_(0, torch.from_numpy(added.indices).long(), torch.from_numpy(added.data) ** 2)
    return codes.column_sums()[latents] / len(codes), squares[latents] / len(codes)
