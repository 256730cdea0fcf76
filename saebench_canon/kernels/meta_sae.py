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
from saebench_canon.kernels.batchtopk_steps import (
    Gradients,
    Selected,
    dense_codes,
    dense_gradients,
    gradients,
    select,
    sparse_gradients,
)
from saebench_canon.kernels.meta_training import Training
from saebench_canon.progress import track

FLOOR = 0.96  # of the last step's threshold, above which candidates for selection lie
__all__ = [
    "MetaSAE",
    "Selected",
    "explained_variance",
    "gradients",
    "select",
    "train",
]

DENSE = 8  # latents for each code of a row up to which dense products are faster
PASSES = 1 - 1e-6  # of a threshold, so that the code that set it passes despite rounding
THRESHOLD_BATCHES = 50  # batches that the inference threshold is averaged over
CURVE_POINTS = 50  # steps whose loss is kept


@dataclass(frozen=True, eq=False)
class MetaSAE:
    """Trained meta-SAEs of B dictionaries: W_enc, W_dec [B, M, d], b_dec [B, d], threshold [B].

    `b_enc` [B, M] is added to codes before selection where the training has one.
    The curve shows the course of training: at each of `curve_step` [p], from the first step to the
    last, the mean of ‖w − ŵ‖² over that step's batch, `curve_loss` [p, B]. It may be None.
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
        """The meta-SAEs with these tensors, as `tensors` returns them."""
        return cls(**tensors)

    def tensors(self) -> dict[str, Tensor]:
        """All its tensors by name, to be stored on disk."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def one(self, index: int) -> MetaSAE:
        """The meta-SAE of one of the dictionaries."""
        part = slice(index, index + 1)
        return MetaSAE(
            self.W_enc[part],
            self.W_dec[part],
            self.b_dec[part],
            self.threshold[part],
            self.curve_step,
            None if self.curve_loss is None else self.curve_loss[:, part],
            None if self.b_enc is None else self.b_enc[part],
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


def train(rows: Tensor, training: Training, generator: torch.Generator, *, title: str) -> MetaSAE:
    """Train one meta-SAE on each of B dictionaries' rows [B, n, d], all from the same start.

    A batch holds no row twice. With n ≤ `training.batch` every step sees all rows; otherwise
    batches are cut from random permutations, whose rest is dropped when it is shorter than a batch.
    With `training.replacement` rows are drawn independently and count as often as they are drawn.
    `title` names the work for the progress display.
    """
    B, n, _ = rows.shape
    size = min(training.batch, n)
    fit = (
        Rescaled(rows, training, generator) if training.rescaled else Fit(rows, training, generator)
    )
    batches: Iterator[tuple[Tensor | None, Tensor | None]]
    batches = ((chosen, None) for chosen in _batches(n, size, generator))
    if training.replacement:
        batches = _with_replacement(n, training.batch, generator)
    curve_steps = _curve_steps(training.steps)
    losses: list[Tensor] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # torch calls compressed rows beta
        for step in track(range(1, training.steps + 1), title, training.steps):
            chosen, weights = next(batches)
            weights = None if weights is None else weights.to(rows.device)
            rebuilt = fit.step(rows if chosen is None else rows[:, chosen], weights)
            if step in curve_steps:
                losses.append(_loss(rebuilt, weights))
    W_enc, W_dec, b_enc = fit.weights()
    W_enc, W_dec = (table.view(B, training.width, -1) for table in (W_enc, W_dec))
    b_enc = None if b_enc is None else b_enc.view(B, -1)
    threshold = _threshold(rows, W_enc, fit.b_dec, b_enc, training.k, size, generator)
    curve = torch.tensor(curve_steps), torch.stack(losses).cpu()
    return MetaSAE(W_enc, W_dec, fit.b_dec, threshold, *curve, b_enc)


def _loss(rebuilt: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of ‖w − ŵ‖² over a batch's rows, [B], from its gradient by ŵ."""
    squares = rebuilt.pow(2).sum(dim=2)
    if weights is not None:
        squares = squares / weights.clamp(min=torch.finfo(weights.dtype).tiny)
    return squares.sum(dim=1) * (rebuilt.shape[1] / 4)


class Fit:
    """B meta-SAEs in training: their weights, `W_enc` and `W_dec` [B·M, d], `b_dec` [B, d]."""

    def __init__(self, rows: Tensor, training: Training, generator: torch.Generator) -> None:
        B, _, d = rows.shape
        start = torch.randn(training.width, d, generator=generator, dtype=torch.float64)
        start *= training.start_norm / start.norm(dim=1, keepdim=True)
        self.W_enc = start.to(rows).repeat(B, 1)
        self.W_dec, self.b_dec = self.W_enc.clone(), rows.new_zeros(B, d)
        self._training = training
        self._adam = Adam(self._learnt(), training.betas)
        self._dense = rows.device.type != "cpu" or training.width <= DENSE * training.k
        self._steps = 0
        self._fired = torch.zeros(
            B * training.width, dtype=torch.int64, device=rows.device
        )  # last at
        self._oldest = 0  # the least of these when last computed
        self._least = [0.0] * B
        self._z = rows.new_empty(0)  # reused each step: new pages cost as much as selection

    def weights(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Encoder and decoder rows [B·M, d], and the bias of the codes [B·M]."""
        return self.W_enc, self.W_dec, None

    def _learnt(self) -> tuple[Tensor, ...]:
        return self.W_enc, self.W_dec, self.b_dec

    def step(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Learn from a batch [B, n, d]; returns the gradient by ŵ, 2 (ŵ − w) / n."""
        training, W_dec = self._training, self.W_dec
        if weights is not None:
            raise NotImplementedError("rows drawn with replacement need `rescaled`")
        self._steps += 1
        centred = x - self.b_dec[:, None]
        encoder = self.W_enc.view(len(x), training.width, -1).transpose(1, 2)
        z = torch.bmm(centred, encoder, out=self._z)
        floors = [FLOOR * least for least in self._least]
        if self._dense:
            codes, self._least = dense_codes(z, training.k, floors)
            gradient = dense_gradients(centred, self.W_enc, W_dec, codes)
        else:
            selected = select(z, training.k, floors)
            self._least = selected.least
            gradient = sparse_gradients(centred, self.W_enc, W_dec, selected)
        self._fired.masked_fill_(gradient.fired, self._steps)
        if training.aux_weight and self._any_dead():
            dead = self._fired <= self._steps - training.dead_after
            _revive(centred, z, self.W_enc, W_dec, dead, gradient, training)
        if training.unit_norm:
            along = (gradient.W_dec * W_dec).sum(dim=1, keepdim=True)
            gradient.W_dec.addcmul_(W_dec, along, value=-1)
        self._adam.step((gradient.W_enc, gradient.W_dec, gradient.b_dec), training.lr)
        if training.unit_norm:
            W_dec /= torch.linalg.vector_norm(W_dec, dim=1, keepdim=True)
        return gradient.rebuilt

    def _any_dead(self) -> bool:
        """Whether a latent has been silent for too long; checked only when one can be."""
        after = self._training.dead_after
        if self._steps <= after or self._steps - self._oldest < after:
            return False
        self._oldest = int(self._fired.min())
        return self._steps - self._oldest >= after


class Rescaled(Fit):
    """`Fit` with free decoder rows whose norms scale the codes, as SAELens trains by default.

    With encoder rows E, decoder rows D of norm r and a bias c, the codes are r (E (w − b) + c) and
    the directions D / r; selection takes the scaled codes.
    """

    def __init__(self, rows: Tensor, training: Training, generator: torch.Generator) -> None:
        self._bias = rows.new_zeros(len(rows) * training.width)
        super().__init__(rows, training, generator)

    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Encoder rows and bias on the scale of the codes, and unit decoder rows."""
        norms = torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True)
        return norms * self.W_enc, self.W_dec / norms, norms[:, 0] * self._bias

    def _learnt(self) -> tuple[Tensor, ...]:
        return self.W_enc, self.W_dec, self.b_dec, self._bias

    def step(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Learn from a batch [B, n, d] whose rows count by `weights` [n], of mean 1."""
        training, B = self._training, len(x)
        norms = torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True)
        encoder, rows = norms * self.W_enc, self.W_dec / norms
        centred = x - self.b_dec[:, None]
        shift = (norms[:, 0] * self._bias).view(B, 1, -1)
        z = torch.baddbmm(shift, centred, encoder.view(B, training.width, -1).transpose(1, 2))
        floors = [FLOOR * least for least in self._least]
        if self._dense:
            codes, self._least = dense_codes(z, training.k, floors, weights)
            gradient = dense_gradients(centred, encoder, rows, codes, weights)
        else:
            selected = select(z, training.k, floors, weights)
            self._least = selected.least
            gradient = sparse_gradients(centred, encoder, rows, selected, weights)
        by_norm = (gradient.W_enc * self.W_enc).sum(dim=1) + gradient.code_gradient * self._bias
        along = (gradient.W_dec * rows).sum(dim=1, keepdim=True)
        to_rows = gradient.W_dec.addcmul(rows, along, value=-1).div_(norms)
        to_rows.addcmul_(rows, by_norm[:, None])
        steps = (
            norms * gradient.W_enc,
            to_rows,
            gradient.b_dec,
            norms[:, 0] * gradient.code_gradient,
        )
        self._adam.step(steps, training.lr)
        return gradient.rebuilt


def _revive(
    centred: Tensor,
    z: Tensor,
    W_enc: Tensor,
    W_dec: Tensor,
    dead: Tensor,
    gradient: Gradients,
    training: Training,
) -> None:
    """Add the aux loss's gradients: dead latents model the error with codes before selection."""
    B, n, d = centred.shape
    enc, dec = W_enc.view(B, -1, d), W_dec.view(B, -1, d)
    to_enc, to_dec = gradient.W_enc.view(B, -1, d), gradient.W_dec.view(B, -1, d)
    for dictionary in range(B):
        latents = dead.view(B, -1)[dictionary].nonzero()[:, 0]
        if len(latents) == 0:
            continue
        codes = z[dictionary][:, latents].relu()
        if len(latents) > training.aux_k:
            values, indices = codes.topk(training.aux_k, dim=1)
            codes = torch.zeros_like(codes).scatter_(1, indices, values)
        slope = codes @ dec[dictionary, latents] * (2 / n) + gradient.rebuilt[dictionary]
        slope *= training.aux_weight
        of_codes = torch.where(codes > 0, slope @ dec[dictionary, latents].T, 0)
        to_dec[dictionary].index_add_(0, latents, codes.T @ slope)
        to_enc[dictionary].index_add_(0, latents, of_codes.T @ centred[dictionary])
        gradient.b_dec[dictionary] -= of_codes.sum(dim=0) @ enc[dictionary, latents]


def _pre_codes(x: Tensor, W_enc: Tensor, b_dec: Tensor, b_enc: Tensor | None = None) -> Tensor:
    z = torch.bmm(x - b_dec[:, None], W_enc.transpose(1, 2))
    return z if b_enc is None else z + b_enc[:, None]


def _curve_steps(steps: int) -> list[int]:
    """Evenly spaced steps from the first to the last."""
    last = max(min(CURVE_POINTS, steps) - 1, 1)
    return sorted({1 + round((steps - 1) * point / last) for point in range(last + 1)})


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor | None]:
    """Rows of each batch: None for all of them, otherwise the next of a random permutation."""
    remaining = torch.empty(0, dtype=torch.int64)
    while True:
        if size == n:
            yield None
            continue
        if len(remaining) < size:
            remaining = torch.randperm(n, generator=generator)
        yield remaining[:size]
        remaining = remaining[size:]


def _with_replacement(
    n: int, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor | None, Tensor | None]]:
    """Rows of each batch of `size` draws (None for all of them), and their weights, of mean 1."""
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
        floors = [FLOOR * low for low in least[-1]] if least else [0.0] * B
        least.append(select(_pre_codes(x, W_enc, b_dec, b_enc), k, floors).least)
    return torch.tensor(least, dtype=rows.dtype, device=rows.device).mean(dim=0) * PASSES


def explained_variance(rows: Tensor, rebuilt: Tensor, *, centred: bool) -> list[float]:
    """1 − Σ‖w − ŵ‖² / Σ‖w − w̄‖² of each dictionary's rows [B, n, d]; nan when they do not vary.

    Uncentred, w̄ is 0.
    """
    rows, rebuilt = rows.double(), rebuilt.double()
    about = rows - rows.mean(dim=1, keepdim=True) if centred else rows
    total = (about**2).sum(dim=(1, 2))
    residual = ((rows - rebuilt) ** 2).sum(dim=(1, 2))
    varies = total > 1e-12 * (rows**2).sum(dim=(1, 2))
    return [float(share) for share in torch.where(varies, 1 - residual / total, torch.nan)]
