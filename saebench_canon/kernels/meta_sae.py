"""A BatchTopK SAE of decoder rows, several dictionaries of one shape at once.

The model (Bussmann et al. 2024; Leask et al. 2025, section 4): `z = (w − b) W_enc`, the k·n
largest positive z of a batch of n are its codes, `ŵ = codes W_dec + b` with unit-norm decoder rows.
Gradients are written by hand (`sparse_steps`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from saebench_canon.kernels.adam import Adam
from saebench_canon.kernels.meta_training import Training
from saebench_canon.kernels.sparse_steps import (
    Gradients,
    Selected,
    dense_codes,
    dense_gradients,
    gradients,
    select,
    sparse_gradients,
)
from saebench_canon.progress import track

EASE = 0.96  # candidates for selection lie above this part of the last step's threshold
__all__ = [
    "MetaSAE",
    "Selected",
    "explained_variance",
    "gradients",
    "select",
    "train",
]

DENSE = 8  # latents for each code of a row up to which dense products are faster
PASSES = 1 - 1e-6  # of a threshold, so that the code that set it passes, however a processor rounds
THRESHOLD_BATCHES = 50  # over which the inference threshold is averaged
CURVE_POINTS = 50  # steps whose loss is kept


@dataclass(frozen=True, eq=False)
class MetaSAE:
    """Trained meta-SAEs of B dictionaries: W_enc, W_dec [B, M, d], b_dec [B, d], threshold [B].

    `b_enc` [B, M] is added to codes before selection where the training has one.
    The curve tells how training went: at each of `curve_step` [p], from the first to the last, the
    mean of ‖w − ŵ‖² over that step's batch, `curve_loss` [p, B]; None where nobody kept it.
    """

    W_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor
    curve_step: Tensor | None = None
    curve_loss: Tensor | None = None
    b_enc: Tensor | None = None

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
            None if self.b_enc is None else self.b_enc[own],
        )

    def encode(self, rows: Tensor) -> Tensor:
        """Codes [B, n, M] of rows [B, n, d] at the inference threshold (eq. 8)."""
        z = self._pre_codes(rows)
        return torch.where(z >= self.threshold[:, None, None], z, 0)

    def encode_largest(self, rows: Tensor, k: int) -> Tensor:
        """Codes [B, n, M] of rows [B, n, d]: the k largest positive ones of each."""
        z = self._pre_codes(rows)
        values, indices = z.topk(k, dim=2)
        return torch.zeros_like(z).scatter_(2, indices, values.relu())

    def _pre_codes(self, rows: Tensor) -> Tensor:
        return _pre_codes(rows, self.W_enc, self.b_dec, self.b_enc)

    def decode(self, codes: Tensor) -> Tensor:
        """Rows [B, n, d] of codes [B, n, M]."""
        return torch.baddbmm(self.b_dec[:, None], codes, self.W_dec)


def train(rows: Tensor, how: Training, generator: torch.Generator, *, what: str) -> MetaSAE:
    """Train one meta-SAE on each of B dictionaries' rows [B, n, d], all from the same start.

    A batch holds no row twice: with n ≤ `how.batch` every step sees all rows; otherwise batches are
    cut from random permutations, whose rest is dropped when it is shorter than a batch. With
    `how.replacement` rows are drawn independently and count as often as they come.
    """
    B, n, _ = rows.shape
    size = min(how.batch, n)
    fit = Rescaled(rows, how, generator) if how.rescaled else Fit(rows, how, generator)
    batches: Iterator[tuple[Tensor | None, Tensor | None]]
    batches = ((chosen, None) for chosen in _batches(n, size, generator))
    if how.replacement:
        batches = _with_replacement(n, how.batch, generator)
    kept = _curve_steps(how.steps)
    losses: list[Tensor] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # compressed rows call themselves beta
        for step in track(range(1, how.steps + 1), what, how.steps):
            chosen, weights = next(batches)
            weights = None if weights is None else weights.to(rows.device)
            rebuilt = fit.step(rows if chosen is None else rows[:, chosen], weights)
            if step in kept:
                losses.append(_loss(rebuilt, weights))
    W_enc, W_dec, b_enc = fit.weights()
    W_enc, W_dec = (each.view(B, how.width, -1) for each in (W_enc, W_dec))
    b_enc = None if b_enc is None else b_enc.view(B, -1)
    threshold = _threshold(rows, W_enc, fit.b_dec, b_enc, how.k, size, generator)
    curve = torch.tensor(kept), torch.stack(losses).cpu()
    return MetaSAE(W_enc, W_dec, fit.b_dec, threshold, *curve, b_enc)


def _loss(rebuilt: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of ‖w − ŵ‖² over a batch's rows, [B], from its gradient by ŵ."""
    squares = rebuilt.pow(2).sum(dim=2)
    if weights is not None:
        squares = squares / weights.clamp(min=torch.finfo(weights.dtype).tiny)
    return squares.sum(dim=1) * (rebuilt.shape[1] / 4)


class Fit:
    """B meta-SAEs in training: their weights, `W_enc` and `W_dec` [B·M, d], `b_dec` [B, d]."""

    def __init__(self, rows: Tensor, how: Training, generator: torch.Generator) -> None:
        B, _, d = rows.shape
        start = torch.randn(how.width, d, generator=generator, dtype=torch.float64)
        start *= how.start_norm / start.norm(dim=1, keepdim=True)
        self.W_enc = start.to(rows).repeat(B, 1)
        self.W_dec, self.b_dec = self.W_enc.clone(), rows.new_zeros(B, d)
        self._how = how
        self._adam = Adam(self._learnt(), how.betas)
        self._dense = rows.device.type != "cpu" or how.width <= DENSE * how.k
        self._steps = 0
        self._fired = torch.zeros(B * how.width, dtype=torch.int64, device=rows.device)  # last at
        self._oldest = 0  # of these, when last looked
        self._least = [0.0] * B
        self._z = rows.new_empty(0)  # taken again each step: its pages cost as much as selection

    def weights(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Encoder and decoder rows [B·M, d], and what is added to codes [B·M]."""
        return self.W_enc, self.W_dec, None

    def _learnt(self) -> tuple[Tensor, ...]:
        return self.W_enc, self.W_dec, self.b_dec

    def step(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Learn from a batch [B, n, d]; the gradient by ŵ there, 2 (ŵ − w) / n."""
        how, W_dec = self._how, self.W_dec
        if weights is not None:
            raise NotImplementedError("rows drawn with replacement need `rescaled`")
        self._steps += 1
        centred = x - self.b_dec[:, None]
        encoder = self.W_enc.view(len(x), how.width, -1).transpose(1, 2)
        z = torch.bmm(centred, encoder, out=self._z)
        floors = [EASE * each for each in self._least]
        if self._dense:
            codes, self._least = dense_codes(z, how.k, floors)
            found = dense_gradients(centred, self.W_enc, W_dec, codes)
        else:
            selected = select(z, how.k, floors)
            self._least = selected.least
            found = sparse_gradients(centred, self.W_enc, W_dec, selected)
        self._fired.masked_fill_(found.fired, self._steps)
        if how.aux_weight and self._anyone_dead():
            dead = self._fired <= self._steps - how.dead_after
            _revive(centred, z, self.W_enc, W_dec, dead, found, how)
        if how.unit_norm:
            along = (found.W_dec * W_dec).sum(dim=1, keepdim=True)
            found.W_dec.addcmul_(W_dec, along, value=-1)
        self._adam.step((found.W_enc, found.W_dec, found.b_dec), how.lr)
        if how.unit_norm:
            W_dec /= torch.linalg.vector_norm(W_dec, dim=1, keepdim=True)
        return found.rebuilt

    def _anyone_dead(self) -> bool:
        """Whether a latent is silent for too long; looks only when one can be."""
        after = self._how.dead_after
        if self._steps <= after or self._steps - self._oldest < after:
            return False
        self._oldest = int(self._fired.min())
        return self._steps - self._oldest >= after


class Rescaled(Fit):
    """The same with free decoder rows whose norms scale the codes, as SAELens trains by default.

    With encoder rows E, decoder rows D of norm r and a bias c, the codes are r (E (w − b) + c) and
    the directions D / r; selection sees codes so scaled.
    """

    def __init__(self, rows: Tensor, how: Training, generator: torch.Generator) -> None:
        self._bias = rows.new_zeros(len(rows) * how.width)
        super().__init__(rows, how, generator)

    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Encoder rows and bias on the scale of the codes, and unit decoder rows."""
        norms = torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True)
        return norms * self.W_enc, self.W_dec / norms, norms[:, 0] * self._bias

    def _learnt(self) -> tuple[Tensor, ...]:
        return self.W_enc, self.W_dec, self.b_dec, self._bias

    def step(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Learn from a batch [B, n, d] whose rows count by `weights` [n], of mean 1."""
        how, B = self._how, len(x)
        norms = torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True)
        encoder, rows = norms * self.W_enc, self.W_dec / norms
        centred = x - self.b_dec[:, None]
        shift = (norms[:, 0] * self._bias).view(B, 1, -1)
        z = torch.baddbmm(shift, centred, encoder.view(B, how.width, -1).transpose(1, 2))
        floors = [EASE * each for each in self._least]
        if self._dense:
            codes, self._least = dense_codes(z, how.k, floors, weights)
            found = dense_gradients(centred, encoder, rows, codes, weights)
        else:
            selected = select(z, how.k, floors, weights)
            self._least = selected.least
            found = sparse_gradients(centred, encoder, rows, selected, weights)
        by_norm = (found.W_enc * self.W_enc).sum(dim=1) + found.pulls * self._bias
        along = (found.W_dec * rows).sum(dim=1, keepdim=True)
        to_rows = found.W_dec.addcmul(rows, along, value=-1).div_(norms)
        to_rows.addcmul_(rows, by_norm[:, None])
        steps = norms * found.W_enc, to_rows, found.b_dec, norms[:, 0] * found.pulls
        self._adam.step(steps, how.lr)
        return found.rebuilt


def _revive(
    centred: Tensor,
    z: Tensor,
    W_enc: Tensor,
    W_dec: Tensor,
    dead: Tensor,
    found: Gradients,
    how: Training,
) -> None:
    """Add the aux loss's gradients: dead latents, by codes before selection, model the error."""
    B, n, d = centred.shape
    enc, dec = W_enc.view(B, -1, d), W_dec.view(B, -1, d)
    to_enc, to_dec = found.W_enc.view(B, -1, d), found.W_dec.view(B, -1, d)
    for at in range(B):
        which = dead.view(B, -1)[at].nonzero()[:, 0]
        if len(which) == 0:
            continue
        codes = z[at][:, which].relu()
        if len(which) > how.aux_k:
            values, indices = codes.topk(how.aux_k, dim=1)
            codes = torch.zeros_like(codes).scatter_(1, indices, values)
        slope = codes @ dec[at, which] * (2 / n) + found.rebuilt[at]
        slope *= how.aux_weight
        of_codes = torch.where(codes > 0, slope @ dec[at, which].T, 0)
        to_dec[at].index_add_(0, which, codes.T @ slope)
        to_enc[at].index_add_(0, which, of_codes.T @ centred[at])
        found.b_dec[at] -= of_codes.sum(dim=0) @ enc[at, which]


def _pre_codes(x: Tensor, W_enc: Tensor, b_dec: Tensor, b_enc: Tensor | None = None) -> Tensor:
    z = torch.bmm(x - b_dec[:, None], W_enc.transpose(1, 2))
    return z if b_enc is None else z + b_enc[:, None]


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


def _with_replacement(
    n: int, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor | None, Tensor | None]]:
    """Rows of each batch of so many draws (None for all of them), and their weights, of mean 1."""
    while True:
        drawn = torch.randint(0, n, (size,), generator=generator)
        if n <= size:
            chosen, counts = None, torch.bincount(drawn, minlength=n)
        else:
            chosen, counts = torch.unique(drawn, return_counts=True)
        yield chosen, counts.float() * (len(counts) / size)


def _threshold(
    rows: Tensor,
    W_enc: Tensor,
    b_dec: Tensor,
    b_enc: Tensor | None,
    k: int,
    size: int,
    generator: torch.Generator,
) -> Tensor:
    """The least code chosen in a batch of the training's size, averaged over batches (eq. 8)."""
    B, n, _ = rows.shape
    batches = _batches(n, size, generator)
    least: list[list[float]] = []
    for _ in range(1 if size == n else THRESHOLD_BATCHES):
        chosen = next(batches)
        x = rows if chosen is None else rows[:, chosen]
        floors = [EASE * each for each in least[-1]] if least else [0.0] * B
        least.append(select(_pre_codes(x, W_enc, b_dec, b_enc), k, floors).least)
    return torch.tensor(least, dtype=rows.dtype, device=rows.device).mean(dim=0) * PASSES


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
