"""Selection and gradients of BatchTopK SAEs of B dictionaries at once: k codes a row, of many.

Only the k·n selected entries carry gradients, so on a CPU all but the encoder's product touches
those entries alone, in compressed rows. Dictionaries of few latents, and other devices, take
products of dense matrices instead: there they are faster.
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
from torch.nn import functional

SORTS_FAST = 2**16  # numbers below it sort in linear time


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
    """Gradients of the mean over rows of ‖w − ŵ‖², and the error ŵ − w [B·n, d]."""

    W_enc: Tensor  # [B·M, d]
    W_dec: Tensor  # [B·M, d]
    b_dec: Tensor  # [B, d]
    error: Tensor
    fired: Tensor  # [B·M] whether each latent was chosen


def select(z: Tensor, k: int, floors: Sequence[float]) -> Selected:
    """The k·n largest positive codes of each of B batches z [B, n, M]; ties with the least stay in.

    `floors` are guesses from below at the least code chosen; a guess too high costs only time.
    """
    B, n, M = z.shape
    flat = z.view(B, n * M)
    if z.device.type == "cpu":
        places, values, least = [], [], []
        for at, floor in enumerate(floors):
            place, value, low = _candidates(flat[at].numpy(), k * n, floor)
            kept = value >= low
            places.append(place[kept] + at * n * M)
            values.append(value[kept])
            least.append(low)
        entry = torch.from_numpy(np.concatenate(places))
        chosen = torch.from_numpy(np.concatenate(values))
    else:
        entry, chosen, least = _select_by_topk(flat, k * n)
    row = entry // M
    return Selected(row, entry - row * M + (row // n) * M, chosen, least)


def least_selected(z: Tensor, k: int, floors: Sequence[float]) -> list[float]:
    """The least code that `select` chooses in each of the B batches; 0 where none is positive."""
    B, n, M = z.shape
    flat = z.view(B, n * M)
    if z.device.type == "cpu":
        return [_candidates(flat[at].numpy(), k * n, low)[2] for at, low in enumerate(floors)]
    return _least_by_topk(flat, k * n)


def _candidates(
    flat: NDArray[Any], wanted: int, floor: float
) -> tuple[NDArray[np.int64], NDArray[Any], float]:
    """Where the largest codes may be, what they are, and the least of those wanted."""
    place = np.flatnonzero(flat >= floor) if floor > 0 else np.empty(0, dtype=np.int64)
    if len(place) < min(wanted, len(flat)):
        place = np.flatnonzero(flat > 0)
    value = flat.take(place)
    if len(value) == 0:
        return place, value, 0.0
    at = max(len(value) - wanted, 0)
    return place, value, float(np.partition(value, at)[at])


def _select_by_topk(flat: Tensor, wanted: int) -> tuple[Tensor, Tensor, list[float]]:
    """The same where a sort is cheap: entries over all B batches [B, n·M], codes, the least."""
    least = _least_by_topk(flat, wanted)
    bound = torch.tensor(least, dtype=flat.dtype, device=flat.device)[:, None]
    entry = ((flat >= bound) & (flat > 0)).view(-1).nonzero()[:, 0]
    return entry, flat.reshape(-1)[entry], least


def _least_by_topk(flat: Tensor, wanted: int) -> list[float]:
    top = flat.topk(min(wanted, flat.shape[1]), dim=1, sorted=False).values
    least: list[float] = torch.where(top > 0, top, torch.inf).amin(dim=1).tolist()
    return [each if math.isfinite(each) else 0.0 for each in least]


def sparse_gradients(
    centred: Tensor, W_enc: Tensor, W_dec: Tensor, selected: Selected
) -> Gradients:
    """Gradients from the selected entries alone; `centred` [B, n, d] is rows less the bias."""
    B, n, d = centred.shape
    M = len(W_dec) // B
    row, latent, values = selected.row, selected.latent, selected.values
    flat, scale = centred.view(B * n, d), 2 / n
    rows = _pointers(row, B * n)
    error = _sums(latent, W_dec, rows, values)
    error -= flat
    of_codes = _dots(error, W_dec, rows, row, latent)
    of_codes *= scale
    order, latents = _by_latent(latent, B * M), _pointers(latent, B * M)
    sources = row[order]
    to_decoder = _sums(sources, error, latents, (values * scale)[order])
    to_encoder = _sums(sources, flat, latents, of_codes[order])
    pulls = torch.zeros(B * M, dtype=flat.dtype, device=flat.device)
    pulls.index_add_(0, latent, of_codes)
    to_bias = error.view(B, n, d).sum(dim=1) * scale
    to_bias -= torch.bmm(pulls.view(B, 1, M), W_enc.view(B, M, d))[:, 0]
    return Gradients(to_encoder, to_decoder, to_bias, error, latents.diff() > 0)


def dense_gradients(
    centred: Tensor, W_enc: Tensor, W_dec: Tensor, z: Tensor, least: Sequence[float]
) -> Gradients:
    """The same from all pre-codes z [B, n, M], by products of dense matrices."""
    B, n, d = centred.shape
    enc, dec = W_enc.view(B, -1, d), W_dec.view(B, -1, d)
    codes = torch.stack(
        [functional.threshold(z[at], _below(low, z.dtype), 0.0) for at, low in enumerate(least)]
    )
    error = torch.baddbmm(centred, codes, dec, beta=-1)
    of_codes = torch.ops.aten.threshold_backward(torch.bmm(error, dec.transpose(1, 2)), codes, 0)
    to_decoder = torch.bmm(codes.transpose(1, 2), error)
    to_encoder = torch.bmm(of_codes.transpose(1, 2), centred)
    to_bias = error.sum(dim=1) - torch.bmm(of_codes.sum(dim=1, keepdim=True), enc)[:, 0]
    for each in (to_decoder, to_encoder, to_bias):
        each *= 2 / n
    return Gradients(
        to_encoder.view(-1, d),
        to_decoder.view(-1, d),
        to_bias,
        error.view(B * n, d),
        codes.sum(dim=1).view(-1) > 0,
    )


def _below(least: float, dtype: torch.dtype) -> float:
    """The number next below the least code chosen, 0 if none was."""
    kind = torch.empty(0, dtype=dtype).numpy().dtype.type
    return max(float(np.nextafter(kind(least), kind(-1))), 0.0)


def _sums(sources: Tensor, table: Tensor, pointers: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of the table's rows, one for each run of sources between two pointers."""
    return functional.embedding_bag(
        sources, table, pointers[:-1], mode="sum", per_sample_weights=weights
    )


def _dots(left: Tensor, right: Tensor, rows: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The entries of `left rightᵀ` at each row and column; `rows` points at each row's first."""
    if left.device.type != "cpu":
        return (left[row] * right[column]).sum(dim=1)
    pattern = torch.sparse_csr_tensor(
        rows,
        column,
        torch.zeros(len(column), dtype=left.dtype),
        (len(left), len(right)),
        check_invariants=False,
    )
    sampled: Tensor = torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0)
    return sampled.values()


def _by_latent(latent: Tensor, count: int) -> Tensor:
    """The order that brings entries of one latent together."""
    if latent.device.type == "cpu" and count < SORTS_FAST:
        return torch.from_numpy(np.argsort(latent.numpy().astype(np.uint16), kind="stable"))
    return torch.argsort(latent, stable=True)


def _pointers(groups: Tensor, count: int) -> Tensor:
    """Where each of `count` groups starts once entries are sorted by group, and the end."""
    pointers = torch.zeros(count + 1, dtype=torch.int64, device=groups.device)
    torch.cumsum(torch.bincount(groups, minlength=count), dim=0, out=pointers[1:])
    return pointers
