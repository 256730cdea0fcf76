"""Selection and gradients of BatchTopK SAEs of B dictionaries at once: k codes a row, of many.

Only the k·n selected entries carry gradients, so on a CPU all but the encoder's product touches
those entries alone, in compressed rows. Dictionaries of few latents, and other devices, take
products of dense matrices instead: there they are faster. Indices are handled by numpy, whose
calls on some thousand numbers cost a third of torch's.
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

Ids = NDArray[np.int64]

SORTS_FAST = 2**16  # numbers below it sort in linear time
PARTITIONED = 2048  # codes up to which one partition of all is fastest
CHUNK = 2**18  # codes compared at once, so that the answers stay in the cache


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
    fired: Tensor  # [B·M] whether each latent was chosen


def select(z: Tensor, k: int, floors: Sequence[float]) -> Selected:
    """The k·n largest positive codes of each of B batches z [B, n, M]; ties with the least stay in.

    `floors` are guesses from below at the least code chosen; a guess too high costs only time.
    """
    B, n, M = z.shape
    flat = z.view(B, n * M)
    if z.device.type != "cpu":
        entry, chosen, least = _select_by_topk(flat, k * n)
        row = entry // M
        return Selected(row, entry - row * M + (row // n) * M, chosen, least)
    rows, latents, values, least = [], [], [], []
    for at, floor in enumerate(floors):
        place, value, low = _candidates(flat[at].numpy(), k * n, floor)
        kept = np.flatnonzero(value >= low)
        place = place.take(kept)
        number = place // M
        rows.append(number + at * n)
        latents.append(place - (number - at) * M)
        values.append(value.take(kept))
        least.append(low)
    row, latent, chosen = (
        torch.from_numpy(np.concatenate(each)) for each in (rows, latents, values)
    )
    return Selected(row, latent, chosen, least)


def dense_codes(z: Tensor, k: int, floors: Sequence[float]) -> tuple[Tensor, list[float]]:
    """The codes that `select` chooses, all others 0 [B, n, M], and each dictionary's least."""
    B, n, M = z.shape
    flat = z.view(B, n * M)
    if z.device.type == "cpu":
        least = [_least(flat[at].numpy(), k * n, low) for at, low in enumerate(floors)]
    else:
        least = _least_by_topk(flat, k * n)
    kind = np.float64 if z.dtype == torch.float64 else np.float32
    codes = torch.empty_like(z)
    for at, low in enumerate(least):
        below = max(float(np.nextafter(kind(low), kind(-1))), 0.0)
        torch.threshold(z[at], below, 0.0, out=codes[at])
    return codes, least


def _least(flat: NDArray[Any], wanted: int, floor: float) -> float:
    """The least of the largest codes that are wanted; 0 where none is positive."""
    if wanted < len(flat) <= PARTITIONED:
        at = len(flat) - wanted
        low = float(np.partition(flat, at)[at])
        if low > 0:
            return low
    return _candidates(flat, wanted, floor)[2]


def _candidates(flat: NDArray[Any], wanted: int, floor: float) -> tuple[Ids, NDArray[Any], float]:
    """Where the largest codes may be, what they are, and the least of those wanted."""
    place = _where(flat, np.greater_equal, floor) if floor > 0 else np.empty(0, dtype=np.int64)
    if len(place) < min(wanted, len(flat)):
        place = _where(flat, np.greater, 0.0)
    value = flat.take(place)
    if len(value) == 0:
        return place, value, 0.0
    at = max(len(value) - wanted, 0)
    return place, value, float(np.partition(value, at)[at])


def _where(flat: NDArray[Any], holds: np.ufunc, bound: float) -> Ids:
    """Where the numbers are above, or not below, the bound."""
    if len(flat) <= CHUNK:
        return np.flatnonzero(holds(flat, bound))
    starts = range(0, len(flat), CHUNK)
    parts = [np.flatnonzero(holds(flat[start : start + CHUNK], bound)) + start for start in starts]
    return np.concatenate(parts)


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
    centred: Tensor, W_enc: Tensor, W_dec: Tensor, selected: Selected
) -> Gradients:
    """The same on a CPU from the selected entries alone; `centred` [B, n, d] is rows less bias."""
    B, n, d = centred.shape
    M = len(W_dec) // B
    flat, scale = centred.view(B * n, d), 2 / n
    latent, values = selected.latent.numpy(), selected.values.numpy()
    rows, _ = _pointers(selected.row.numpy(), B * n)
    rebuilt = _sums(selected.latent, W_dec, rows, selected.values * scale)
    rebuilt.sub_(flat, alpha=scale)
    pattern = torch.sparse_csr_tensor(
        rows, selected.latent, selected.values, (B * n, B * M), check_invariants=False
    )
    sampled: Tensor = torch.sparse.sampled_addmm(pattern, rebuilt, W_dec.T, beta=0.0)
    codes = sampled.values()
    # sixteen bits sort in linear time
    key = latent.astype(np.uint16) if B * M <= SORTS_FAST else latent
    order = np.argsort(key, kind="stable")
    latents, fired = _pointers(latent, B * M)
    sources = torch.from_numpy(selected.row.numpy().take(order))
    to_decoder = _sums(sources, rebuilt, latents, torch.from_numpy(values.take(order)))
    to_encoder = _sums(sources, flat, latents, torch.from_numpy(codes.numpy().take(order)))
    pulls = flat.new_zeros(B * M).index_add_(0, selected.latent, codes)
    rebuilt = rebuilt.view(B, n, d)
    return Gradients(to_encoder, to_decoder, _to_bias(rebuilt, pulls, W_enc), rebuilt, fired)


def dense_gradients(centred: Tensor, W_enc: Tensor, W_dec: Tensor, codes: Tensor) -> Gradients:
    """The same from all codes [B, n, M], by products of dense matrices."""
    B, n, d = centred.shape
    decoder = W_dec.view(B, -1, d)
    rebuilt = torch.baddbmm(centred, codes, decoder, beta=-2 / n, alpha=2 / n)
    pulls = torch.bmm(rebuilt, decoder.transpose(1, 2))
    pulls = torch.ops.aten.threshold_backward(pulls, codes, 0)
    return Gradients(
        torch.bmm(pulls.transpose(1, 2), centred).view(-1, d),
        torch.bmm(codes.transpose(1, 2), rebuilt).view(-1, d),
        _to_bias(rebuilt, pulls.sum(dim=1), W_enc),
        rebuilt,
        codes.sum(dim=1).view(-1) > 0,
    )


def _to_bias(rebuilt: Tensor, pulls: Tensor, W_enc: Tensor) -> Tensor:
    """What the bias does to ŵ, less what it does to codes, whose gradients sum to `pulls`."""
    B, _, d = rebuilt.shape
    through = torch.bmm(pulls.view(B, 1, -1), W_enc.view(B, -1, d))[:, 0]
    return rebuilt.sum(dim=1).sub_(through)


def _sums(sources: Tensor, table: Tensor, pointers: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of the table's rows, one for each run of sources between two pointers."""
    sums: Tensor = torch.embedding_bag(table, sources, pointers[:-1], False, 0, False, weights)[0]
    return sums


def _pointers(groups: Ids, count: int) -> tuple[Tensor, Tensor]:
    """Where each of `count` groups starts once entries are sorted by group, and which have any."""
    sizes = np.bincount(groups, minlength=count)
    pointers = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(sizes, out=pointers[1:])
    return torch.from_numpy(pointers), torch.from_numpy(sizes > 0)
