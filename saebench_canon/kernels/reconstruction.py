"""How well codes and decoder rows rebuild activations, by document, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.progress import track

CHUNK = 8192  # tokens


@dataclass(frozen=True, eq=False)
class Sums:
    """Per-document sums [docs] float64 of what a reconstruction is judged by."""

    tokens: Tensor
    error: Tensor  # ‖x − x̂‖²
    spread: Tensor  # ‖x − x̄‖²
    principal: Tensor  # ‖P(x − x̄)‖² for the first principal components
    cosine: Tensor
    product: Tensor  # x̂·x
    square: Tensor  # ‖x̂‖²
    active: Tensor  # number of active latents


def chunks(
    x: Tensor, *codes: Codes, title: str, size: int = CHUNK, dtype: torch.dtype = torch.float64
) -> Iterator[tuple[slice, Tensor, list[Codes]]]:
    """Chunks of tokens: which, their activations in the dtype on the codes' device, their codes."""
    device = codes[0].values.device if codes else x.device
    starts = range(0, len(x), size)
    for start in track(starts, title, len(starts)):
        part = slice(start, min(start + size, len(x)))
        active = [sparse.rows(part.start, part.stop) for sparse in codes]
        yield part, x[part].to(device=device, dtype=dtype), active


def mean_and_covariance(x: Tensor, *, size: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Mean [d] and covariance [d, d] of activations [n, d], in float64."""
    mean = x.new_zeros(x.shape[1], dtype=torch.float64)
    for _, part, _ in chunks(x, title="mean activation", size=size):
        mean += part.sum(dim=0)
    mean.div_(len(x))
    covariance = mean.new_zeros(x.shape[1], x.shape[1])
    for _, part, _ in chunks(x, title="covariance of activations", size=size):
        part = part - mean
        covariance += part.T @ part
    return mean, covariance.div_(len(x))


def principal_components(covariance: Tensor, count: int) -> Tensor:
    """The `count` leading eigenvectors as columns, [d, count]; fewer when d is."""
    vectors: Tensor = torch.linalg.eigh(covariance).eigenvectors
    return vectors[:, max(0, len(vectors) - count) :]


def reconstruction_sums(
    x: Tensor,
    index: Tensor,
    count: int,
    codes: Codes,
    rows: Tensor,
    bias: Tensor,
    *,
    components: int,
    size: int = CHUNK,
) -> Sums:
    """Per-document sums of x [n, d], its codes and its reconstruction `codes rows + bias`.

    `index` [n] is each token's document of `count`. The mean and the principal components are
    those of all of x. A token whose activation or reconstruction is 0 has cosine 0.
    """
    rows, bias = rows.double(), bias.double()
    mean, covariance = mean_and_covariance(x, size=size)
    mean = mean.to(rows.device)
    basis = principal_components(covariance, components).to(rows.device)
    index = index.to(rows.device)
    sums = rows.new_zeros(count, 8)
    for part, true, (active,) in chunks(x, codes, title="reconstructing", size=size):
        rebuilt = active.decode(rows) + bias
        centred = true - mean
        product = (rebuilt * true).sum(dim=1)
        square = (rebuilt**2).sum(dim=1)
        norms = (square * (true**2).sum(dim=1)).sqrt()
        values = [
            torch.ones_like(product),
            ((true - rebuilt) ** 2).sum(dim=1),
            (centred**2).sum(dim=1),
            ((centred @ basis) ** 2).sum(dim=1),
            torch.where(norms > 0, product / norms, 0),
            product,
            square,
            active.indptr.diff().double(),
        ]
        sums.index_add_(0, index[part], torch.stack(values, dim=1))
    return Sums(*sums.unbind(dim=1))


def error_by_group(
    x: Tensor,
    index: Tensor,
    count: int,
    group: Tensor,
    groups: int,
    codes: Codes,
    rows: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """‖x − x̂‖² and ‖x − x̄_g‖² by document and group g of tokens, [count, groups] float64 each.

    `index` [n] is each token's document, `group` [n] its group, x̄_g the mean of the group's tokens.
    """
    rows, bias = rows.double(), bias.double()
    group = group.to(rows.device)
    totals = rows.new_zeros(groups, x.shape[1])
    for part, true, _ in chunks(x, codes, title="mean activations"):
        totals.index_add_(0, group[part], true)
    means = totals / torch.bincount(group, minlength=groups).clamp(min=1)[:, None]
    cell = index.to(rows.device) * groups + group
    sums = rows.new_zeros(count * groups, 2)
    for part, true, (active,) in chunks(x, codes, title="errors by position"):
        error = (true - active.decode(rows) - bias).square().sum(dim=1)
        spread = (true - means[group[part]]).square().sum(dim=1)
        sums.index_add_(0, cell[part], torch.stack([error, spread], dim=1))
    error, spread = sums.reshape(count, groups, 2).unbind(dim=2)
    return error, spread
