"""Selection and gradients of BatchTopK SAEs of B dictionaries at once, with k codes a row.

Only the k·n selected entries carry gradients. On a CPU everything but the encoder's product
therefore works on those entries alone, in compressed rows. Dictionaries of few latents, and other
devices, use products of dense matrices instead, which are faster there. numpy handles the indices:
its calls on a few thousand numbers cost a third of torch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saebench_canon.kernels import top_k as largest
from saebench_canon.kernels.sparse_rows import dots, order_of, pointers, sums

ROUNDING = 1e-6  # relative error allowed in sums of weights


@dataclass(frozen=True, eq=False)
class Selected:
    """The codes chosen in a batch, over all dictionaries, in order of rows.

    `row` counts rows of the B·n and `latent` latents of the B·M; `values` are the codes.
    """

    row: Tensor
    latent: Tensor
    values: Tensor
    least: list[float]  # of each dictionary


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of the mean over n rows of ‖w − ŵ‖², also by ŵ: 2 (ŵ − w) / n."""

    W_enc: Tensor  # [B·M, d]
    W_dec: Tensor  # [B·M, d]
    b_dec: Tensor  # [B, d]
    rebuilt: Tensor  # [B, n, d]
    code_gradient: Tensor  # [B·M] by each latent's codes, summed over rows
    fired: Tensor  # [B·M] whether each latent was chosen


def select(z: Tensor, k: int, floors: Sequence[float], weights: Tensor | None = None) -> Selected:
    """The k·n largest positive codes of each of B batches z [B, n, M], with ties at the least.

    `floors` are lower guesses at the least code chosen; a guess too high only costs time. With
    `weights` [n], of mean 1, each code of a row counts as often as its weight says.
    """
    B, n, M = z.shape
    flat = z.view(B, n * M)
    if weights is None and z.device.type != "cpu":
        entry, chosen, least = _select_by_topk(flat, k * n)
        row = entry // M
        return Selected(row, entry - row * M + (row // n) * M, chosen, least)
    rows, latents, values, least = [], [], [], []
    for dictionary, floor in enumerate(floors):
        if weights is None:
            index, value, low = largest.candidates(flat[dictionary].numpy(), k * n, floor)
        else:
            index, value, low = _weighted(z[dictionary], k, floor, weights)
        passing = np.flatnonzero(value >= low)
        index = index.take(passing)
        row_number = index // M
        rows.append(row_number + dictionary * n)
        latents.append(index - (row_number - dictionary) * M)
        values.append(value.take(passing))
        least.append(low)
    row, latent, chosen = (
        torch.from_numpy(np.concatenate(parts)).to(z.device) for parts in (rows, latents, values)
    )
    return Selected(row, latent, chosen, least)


def dense_codes(
    z: Tensor, k: int, floors: Sequence[float], weights: Tensor | None = None
) -> tuple[Tensor, list[float]]:
    """The codes that `select` chooses, 0 elsewhere [B, n, M], and each dictionary's least one."""
    B, n, M = z.shape
    flat = z.view(B, n * M)
    if weights is not None:
        least = [_weighted(batch, k, low, weights)[2] for batch, low in zip(z, floors, strict=True)]
    elif z.device.type == "cpu":
        least = [
            largest.least(batch.numpy(), k * n, low)
            for batch, low in zip(flat, floors, strict=True)
        ]
    else:
        least = _least_by_topk(flat, k * n)
    kind = np.float64 if z.dtype == torch.float64 else np.float32
    codes = torch.empty_like(z)
    for dictionary, low in enumerate(least):
        below = max(float(np.nextafter(kind(low), kind(-1))), 0.0)
        torch.threshold(z[dictionary], below, 0.0, out=codes[dictionary])
    return codes, least


def _weighted(
    z: Tensor, k: int, floor: float, weights: Tensor
) -> tuple[largest.Ids, NDArray[Any], float]:
    """Candidates for the largest positive codes of z [n, M]: indices, values, and the least chosen.

    The codes not below the least one together weigh k·n. Rows of weight 0 have no codes.
    """
    n, M = z.shape
    flat, weight = z.reshape(-1).cpu().numpy(), weights.cpu().numpy()
    mass = k * n * (1 - ROUNDING)
    index: largest.Ids = np.empty(0, dtype=np.int64)
    entry_weight = weight[:0]
    for bound in (floor, float(np.finfo(flat.dtype).smallest_subnormal)):
        if bound <= 0:
            continue
        index = largest.where(flat, bound)
        entry_weight = weight.take(index // M)
        if entry_weight.sum(dtype=np.float64) >= mass:
            break
    counted = np.flatnonzero(entry_weight)
    index, entry_weight = index.take(counted), entry_weight.take(counted)
    value = flat.take(index)
    if len(value) == 0:
        return index, value, 0.0
    order = np.argsort(value)[::-1]
    reached = int(np.searchsorted(entry_weight.take(order).cumsum(dtype=np.float64), mass))
    return index, value, float(value[order[min(reached, len(order) - 1)]])


def _select_by_topk(flat: Tensor, count: int) -> tuple[Tensor, Tensor, list[float]]:
    """`select` where a sort is cheap: entries over all B batches [B, n·M], codes, and the least."""
    least = _least_by_topk(flat, count)
    bound = torch.tensor(least, dtype=flat.dtype, device=flat.device)[:, None]
    entry = ((flat >= bound) & (flat > 0)).view(-1).nonzero()[:, 0]
    return entry, flat.reshape(-1)[entry], least


def _least_by_topk(flat: Tensor, count: int) -> list[float]:
    top = flat.topk(min(count, flat.shape[1]), dim=1, sorted=False).values
    least: list[float] = torch.where(top > 0, top, torch.inf).amin(dim=1).tolist()
    return [value if math.isfinite(value) else 0.0 for value in least]


def gradients(
    x: Tensor, W_enc: Tensor, W_dec: Tensor, b_dec: Tensor, selected: Selected
) -> Gradients:
    """Gradients of the mean over n rows of ‖w − ŵ‖², summed over the B dictionaries.

    `x` [B, n, d], `W_enc`, `W_dec` [B·M, d], `b_dec` [B, d]; the selection is held constant.
    """
    centred = x - b_dec[:, None]
    if x.device.type == "cpu":
        return sparse_gradients(centred, W_enc, W_dec, selected)
    B, n, _ = x.shape
    M = len(W_dec) // B
    codes = x.new_zeros(B * n, M)
    codes[selected.row, selected.latent % M] = selected.values
    return dense_gradients(centred, W_enc, W_dec, codes.view(B, n, M))


def sparse_gradients(
    centred: Tensor,
    W_enc: Tensor,
    W_dec: Tensor,
    selected: Selected,
    weights: Tensor | None = None,
) -> Gradients:
    """The same gradients on a CPU, from selected entries; `centred` [B, n, d] is rows less bias.

    With `weights` [n] the mean over rows is weighted.
    """
    B, n, d = centred.shape
    M = len(W_dec) // B
    flat, scale = centred.view(B * n, d), 2 / n
    latent, values = selected.latent.numpy(), selected.values
    starts, _ = pointers(selected.row.numpy(), B * n)
    rebuilt = sums(selected.latent, W_dec, starts, values * scale).sub_(flat, alpha=scale)
    if weights is not None:
        rebuilt.view(B, n, d).mul_(weights[:, None])
    codes = dots(rebuilt, W_dec, starts, selected.latent, values)
    order = order_of(latent, B * M)
    starts, fired = pointers(latent, B * M)
    sources = torch.from_numpy(selected.row.numpy().take(order))
    sorted_values, sorted_codes = (
        torch.from_numpy(numbers.numpy().take(order)) for numbers in (values, codes)
    )
    to_decoder = sums(sources, rebuilt, starts, sorted_values)
    to_encoder = sums(sources, flat, starts, sorted_codes)
    code_gradient = flat.new_zeros(B * M).index_add_(0, selected.latent, codes)
    rebuilt = rebuilt.view(B, n, d)
    to_bias = _to_bias(rebuilt, code_gradient, W_enc)
    return Gradients(to_encoder, to_decoder, to_bias, rebuilt, code_gradient, fired)


def dense_gradients(
    centred: Tensor, W_enc: Tensor, W_dec: Tensor, codes: Tensor, weights: Tensor | None = None
) -> Gradients:
    """The same gradients from all codes [B, n, M], by products of dense matrices."""
    B, n, d = centred.shape
    decoder = W_dec.view(B, -1, d)
    rebuilt = torch.baddbmm(centred, codes, decoder, beta=-2 / n, alpha=2 / n)
    if weights is not None:
        rebuilt *= weights[:, None]
    by_code = torch.bmm(rebuilt, decoder.transpose(1, 2))
    by_code = torch.ops.aten.threshold_backward(by_code, codes, 0)
    code_gradient = by_code.sum(dim=1)
    return Gradients(
        torch.bmm(by_code.transpose(1, 2), centred).view(-1, d),
        torch.bmm(codes.transpose(1, 2), rebuilt).view(-1, d),
        _to_bias(rebuilt, code_gradient, W_enc),
        rebuilt,
        code_gradient.view(-1),
        codes.sum(dim=1).view(-1) > 0,
    )


def _to_bias(rebuilt: Tensor, code_gradient: Tensor, W_enc: Tensor) -> Tensor:
    """The bias's gradient: through ŵ, less through the codes, whose gradients are summed."""
    B, _, d = rebuilt.shape
    through = torch.bmm(code_gradient.view(B, 1, -1), W_enc.view(B, -1, d))[:, 0]
    return rebuilt.sum(dim=1).sub_(through)
