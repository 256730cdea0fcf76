"""A BatchTopK SAE of decoder rows, several dictionaries of one shape at once.

The model (Bussmann et al. 2024; Leask et al. 2025, section 4): `z = (w − b) W_enc`, the k·n
largest positive z of a batch of n are its codes, `ŵ = codes W_dec + b` with unit-norm decoder rows.
Only the k·n selected entries carry gradients, so all but the encoder's product is sparse and
written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from saebench_canon.progress import track

EPS = 1e-8  # of Adam
EASE = 0.9  # candidates for selection lie above this part of the last step's threshold
THRESHOLD_BATCHES = 50  # over which the inference threshold is averaged
CURVE_POINTS = 50  # steps whose loss is kept


@dataclass(frozen=True)
class Training:
    """How a meta-SAE is trained."""

    width: int
    k: int
    steps: int
    batch: int
    lr: float
    dead_after: int = 100  # steps without a code after which the aux loss revives a latent
    aux_k: int = 512
    aux_weight: float = 1 / 32
    betas: tuple[float, float] = (0.9, 0.999)  # of Adam
    unit_norm: bool = True  # decoder rows stay at unit norm; without it they only start there


@dataclass(frozen=True, eq=False)
class MetaSAE:
    """Trained meta-SAEs of B dictionaries: W_enc, W_dec [B, M, d], b_dec [B, d], threshold [B].

    The curve tells how training went: at each of `curve_step` [p], from the first to the last, the
    mean of ‖w − ŵ‖² over that step's batch, `curve_loss` [p, B]; None where nobody kept it.
    """

    W_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor
    curve_step: Tensor | None = None
    curve_loss: Tensor | None = None

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> MetaSAE:
        """The meta-SAEs that `tensors` gave."""
        return cls(**tensors)

    def tensors(self) -> dict[str, Tensor]:
        """All there is to it, by name, to be kept on disk."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: tensor for name, tensor in given.items() if tensor is not None}

    def one(self, at: int) -> MetaSAE:
        """The meta-SAE of one of the dictionaries by itself."""
        own = slice(at, at + 1)
        return MetaSAE(
            self.W_enc[own],
            self.W_dec[own],
            self.b_dec[own],
            self.threshold[own],
            self.curve_step,
            None if self.curve_loss is None else self.curve_loss[:, own],
        )

    def encode(self, rows: Tensor) -> Tensor:
        """Codes [B, n, M] of rows [B, n, d] at the inference threshold (eq. 8)."""
        z = _pre_codes(rows, self.W_enc, self.b_dec)
        return torch.where(z >= self.threshold[:, None, None], z, 0)

    def encode_largest(self, rows: Tensor, k: int) -> Tensor:
        """Codes [B, n, M] of rows [B, n, d]: the k largest positive ones of each."""
        z = _pre_codes(rows, self.W_enc, self.b_dec)
        values, indices = z.topk(k, dim=2)
        return torch.zeros_like(z).scatter_(2, indices, values.relu())

    def decode(self, codes: Tensor) -> Tensor:
        """Rows [B, n, d] of codes [B, n, M]."""
        return torch.baddbmm(self.b_dec[:, None], codes, self.W_dec)


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
    fired: Tensor  # [B·M] how often each latent was chosen


def train(rows: Tensor, how: Training, generator: torch.Generator, *, what: str) -> MetaSAE:
    """Train one meta-SAE on each of B dictionaries' rows [B, n, d], all from the same start.

    A batch holds no row twice: with n ≤ `how.batch` every step sees all rows; otherwise batches are
    cut from random permutations, whose rest is dropped when it is shorter than a batch.
    """
    B, n, d = rows.shape
    M, size = how.width, min(how.batch, n)
    flat = rows.new_empty(B * (2 * M + 1) * d)
    cut = B * M * d
    W_enc, W_dec = flat[:cut].view(B * M, d), flat[cut : 2 * cut].view(B * M, d)
    b_dec = flat[2 * cut :].view(B, d)
    start = torch.randn(M, d, generator=generator, dtype=torch.float64)
    start /= start.norm(dim=1, keepdim=True)
    W_enc.copy_(start.to(rows).repeat(B, 1))
    W_dec.copy_(W_enc)
    b_dec.zero_()
    grad, first, second = (torch.zeros_like(flat) for _ in range(3))
    silent = torch.zeros(B * M, dtype=torch.int64, device=rows.device)
    least = [0.0] * B
    scratch = rows.new_empty(B, size, M)
    batches = _batches(n, size, generator)
    kept = _curve_steps(how.steps)
    losses: list[Tensor] = []
    for step in track(range(1, how.steps + 1), what, how.steps):
        chosen = next(batches)
        x = rows if chosen is None else rows[:, chosen]
        z = _pre_codes(x, W_enc.view(B, M, d), b_dec, out=scratch)
        selected = select(z, how.k, [EASE * each for each in least])
        least = selected.least
        found = gradients(x, W_enc, W_dec, b_dec, selected)
        grad[:cut] = found.W_enc.view(-1)
        grad[cut : 2 * cut] = found.W_dec.view(-1)
        grad[2 * cut :] = found.b_dec.view(-1)
        if step in kept:
            losses.append(found.error.view(B, -1).pow(2).sum(dim=1) / size)
        silent += 1
        silent[found.fired > 0] = 0
        dead = silent >= how.dead_after
        if step > how.dead_after and bool(dead.any()):
            _revive(x, z, found.error, dead, flat, grad, how)
        if how.unit_norm:
            along = grad[cut : 2 * cut].view(B * M, d)
            along -= (along * W_dec).sum(dim=1, keepdim=True) * W_dec
        _adam(flat, grad, first, second, step, how)
        if how.unit_norm:
            W_dec /= W_dec.norm(dim=1, keepdim=True)
    parameters = W_enc.view(B, M, d), W_dec.view(B, M, d), b_dec
    threshold = _threshold(rows, *parameters[::2], how.k, size, generator)
    return MetaSAE(*parameters, threshold, torch.tensor(kept), torch.stack(losses))


def select(z: Tensor, k: int, floors: list[float]) -> Selected:
    """The k·n largest positive codes of each of B batches z [B, n, M]; ties with the least stay in.

    `floors` are guesses from below at the least code chosen; a guess too high costs only time.
    """
    _, n, M = z.shape
    wanted = min(k * n, n * M)
    places, values, least = [], [], []
    for at, floor in enumerate(floors):
        flat = z[at].reshape(-1).numpy()
        place = np.flatnonzero(flat >= floor) if floor > 0 else np.empty(0, dtype=np.int64)
        if len(place) < wanted:
            place = np.flatnonzero(flat > 0)
        value = flat[place]
        if len(place) > wanted:
            kept = value >= np.partition(value, len(value) - wanted)[len(value) - wanted]
            place, value = place[kept], value[kept]
        least.append(float(value.min()) if len(value) else 0.0)
        places.append(place + at * n * M)
        values.append(value)
    entry = torch.from_numpy(np.concatenate(places))
    row = entry // M
    latent = entry - row * M + (row // n) * M
    return Selected(row, latent, torch.from_numpy(np.concatenate(values)), least)


def gradients(
    x: Tensor, W_enc: Tensor, W_dec: Tensor, b_dec: Tensor, selected: Selected
) -> Gradients:
    """Gradients of the mean over n rows of ‖w − ŵ‖², summed over the B dictionaries.

    `x` [B, n, d], `W_enc`, `W_dec` [B·M, d], `b_dec` [B, d]; the selection is held constant.
    """
    B, n, d = x.shape
    M = len(W_dec) // B
    row, latent, values = selected.row, selected.latent, selected.values
    centred = (x - b_dec[:, None]).view(B * n, d)
    error = _weighted(latent, W_dec, _starts(row, B * n)[0], values) - centred
    slope = error * (2 / n)
    of_codes = _dots(slope, row, W_dec, latent)
    order = torch.argsort(latent)
    starts, fired = _starts(latent, B * M)
    sources = row[order]
    to_decoder = _weighted(sources, slope, starts, values[order])
    to_encoder = _weighted(sources, centred, starts, of_codes[order])
    pulls = torch.zeros(B * M, dtype=x.dtype, device=x.device).index_add_(0, latent, of_codes)
    to_bias = slope.view(B, n, d).sum(dim=1)
    to_bias -= torch.bmm(pulls.view(B, 1, M), W_enc.view(B, M, d))[:, 0]
    return Gradients(to_encoder, to_decoder, to_bias, error, fired)


def _revive(
    x: Tensor, z: Tensor, error: Tensor, dead: Tensor, flat: Tensor, grad: Tensor, how: Training
) -> None:
    """Add the aux loss's gradients: dead latents, by codes before selection, model the error."""
    B, n, d = x.shape
    M = how.width
    cut = B * M * d
    enc, dec = flat[:cut].view(B, M, d), flat[cut : 2 * cut].view(B, M, d)
    to_enc, to_dec = grad[:cut].view(B, M, d), grad[cut : 2 * cut].view(B, M, d)
    bias, to_bias = flat[2 * cut :].view(B, d), grad[2 * cut :].view(B, d)
    for at in range(B):
        which = dead.view(B, M)[at].nonzero()[:, 0]
        if len(which) == 0:
            continue
        codes = z[at][:, which].relu()
        if len(which) > how.aux_k:
            values, indices = codes.topk(how.aux_k, dim=1)
            codes = torch.zeros_like(codes).scatter_(1, indices, values)
        slope = codes @ dec[at, which] + error.view(B, n, d)[at]
        slope *= 2 * how.aux_weight / n
        of_codes = torch.where(codes > 0, slope @ dec[at, which].T, 0)
        to_dec[at].index_add_(0, which, codes.T @ slope)
        to_enc[at].index_add_(0, which, of_codes.T @ (x[at] - bias[at]))
        to_bias[at] -= of_codes.sum(dim=0) @ enc[at, which]


def _pre_codes(x: Tensor, W_enc: Tensor, b_dec: Tensor, *, out: Tensor | None = None) -> Tensor:
    return torch.bmm(x - b_dec[:, None], W_enc.transpose(1, 2), out=out)


def _weighted(sources: Tensor, table: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of the table's rows, one for each start."""
    return functional.embedding_bag(sources, table, starts, mode="sum", per_sample_weights=weights)


def _starts(groups: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Where each of `count` groups starts once entries are sorted by group, and its size."""
    sizes = torch.bincount(groups, minlength=count)
    return torch.cumsum(sizes, dim=0) - sizes, sizes


def _dots(left: Tensor, row: Tensor, right: Tensor, latent: Tensor, *, size: int = 1024) -> Tensor:
    """Dot products of gathered rows, a few at a time so that they stay in the cache."""
    out = left.new_empty(len(row))
    for start in range(0, len(row), size):
        stop = start + size
        product = left.index_select(0, row[start:stop])
        product *= right.index_select(0, latent[start:stop])
        torch.sum(product, dim=1, out=out[start:stop])
    return out


def _adam(
    flat: Tensor, grad: Tensor, first: Tensor, second: Tensor, step: int, how: Training
) -> None:
    one, two = how.betas
    first.lerp_(grad, 1 - one)
    second.mul_(two).addcmul_(grad, grad, value=1 - two)
    scale = (1 - two**step) ** 0.5
    below = second.sqrt().add_(EPS * scale)
    flat.addcdiv_(first, below, value=-how.lr * scale / (1 - one**step))


def _curve_steps(steps: int) -> list[int]:
    """Steps evenly spread from the first to the last."""
    last = max(min(CURVE_POINTS, steps) - 1, 1)
    return sorted({1 + round((steps - 1) * at / last) for at in range(last + 1)})


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor | None]:
    """Rows of each batch: None for all of them, else the next of a random permutation."""
    left = torch.empty(0, dtype=torch.int64)
    while True:
        if size == n:
            yield None
            continue
        if len(left) < size:
            left = torch.randperm(n, generator=generator)
        yield left[:size]
        left = left[size:]


def _threshold(
    rows: Tensor, W_enc: Tensor, b_dec: Tensor, k: int, size: int, generator: torch.Generator
) -> Tensor:
    """The least code chosen in a batch of the training's size, averaged over batches (eq. 8)."""
    B, n, _ = rows.shape
    batches = _batches(n, size, generator)
    least = []
    for _ in range(1 if size == n else THRESHOLD_BATCHES):
        chosen = next(batches)
        x = rows if chosen is None else rows[:, chosen]
        least.append(select(_pre_codes(x, W_enc, b_dec), k, [0.0] * B).least)
    return torch.tensor(least, dtype=rows.dtype, device=rows.device).mean(dim=0)


def explained_variance(rows: Tensor, rebuilt: Tensor, *, centred: bool) -> list[float]:
    """1 − Σ‖w − ŵ‖² / Σ‖w − w̄‖² of each dictionary's rows [B, n, d]; nan when they do not vary.

    Uncentred, w̄ is 0.
    """
    rows, rebuilt = rows.double(), rebuilt.double()
    about = rows - rows.mean(dim=1, keepdim=True) if centred else rows
    total = (about**2).sum(dim=(1, 2))
    left = ((rows - rebuilt) ** 2).sum(dim=(1, 2))
    varies = total > 1e-12 * (rows**2).sum(dim=(1, 2))
    return [float(each) for each in torch.where(varies, 1 - left / total, torch.nan)]
