"""One training step's gradients in closed form, about twice as fast on a CPU as autograd.

With codes f = relu(p) · selected and p = (x − b) W_enc + b_enc, the norms by which SAELens rescales
before it selects cancel from codes times rows, so they only choose the support.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

Select = Callable[[Tensor], Tensor]  # pre-activations times norms [n, m] -> least that is kept

SMALL_ROW = 512  # latents up to which a partition beats torch.topk on a row


@dataclass(frozen=True)
class Revival:
    """The auxiliary loss: the best `k` dead latents explain the error that the others leave."""

    coefficient: float
    k: int
    dead_after: int  # tokens without firing


@dataclass(frozen=True)
class Step:
    """What a step tells: its loss and which latents fired [m]."""

    loss: Tensor
    fired: Tensor


def largest_of_each(k: int) -> Select:
    """Keeps the k largest of each token: the least of them, [n, 1]."""

    def select(z: Tensor) -> Tensor:
        if z.device.type == "cpu" and z.shape[1] <= SMALL_ROW:
            at = z.shape[1] - k
            return torch.from_numpy(np.partition(z.numpy(), at, axis=1)[:, at : at + 1])
        return z.topk(k, dim=1).values[:, -1:]

    return select


class LargestOfBatch:
    """Keeps the n·k largest of a batch of n; the last batch's bound narrows the search."""

    def __init__(self, k: float) -> None:
        self._k = k
        self._bound = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        count = min(round(self._k * len(z)), z.numel())
        if z.device.type != "cpu":
            return z.flatten().topk(count).values[-1]
        values = z.numpy()
        likely = values[values > self._bound]
        if len(likely) < count:
            likely = values.ravel()
        at = len(likely) - count
        least = float(np.partition(likely, at)[at])
        self._bound = 0.8 * max(least, 0.0)
        return torch.tensor(least, dtype=z.dtype)


@torch.no_grad()
def set_gradients(
    sae: Any,
    x: Tensor,
    *,
    select: Select | None = None,
    l1: float = 0.0,
    widths: tuple[int, ...] = (),
    revival: Revival | None = None,
    dead: Tensor | None = None,
) -> Step:
    """Set the gradients of an SAELens training SAE for `‖x−x̂‖² + l1 Σ f_i ‖w_i‖` on a batch [n, d].

    `widths` adds the error of the first so many latents by themselves (Matryoshka); `dead` [m]
    latents learn by `revival`. The SAE subtracts b_dec from its input.
    """
    W_enc, W_dec, b = sae.W_enc.data, sae.W_dec.data, sae.b_dec.data
    scale = 2 / len(x)
    norms = W_dec.norm(dim=1)
    centred = x - b
    p = torch.addmm(sae.b_enc.data, centred, W_enc)
    if select is None:
        codes = p.relu()
    else:
        z = p * norms
        least = select(z).clamp(min=torch.finfo(z.dtype).tiny)
        codes = torch.where(z >= least, p, 0)
    sums = codes.sum(dim=0)
    blocks = list(pairwise((0, *widths[:-1], len(W_dec))))
    errors: list[Tensor] = []
    error = b - x
    for low, high in blocks:
        error = torch.addmm(error, codes[:, low:high], W_dec[low:high])
        errors.append(error)
    loss = sum((each.pow(2).sum() for each in errors), torch.zeros((), device=x.device)) / len(x)
    rows_grad, codes_grad = torch.empty_like(W_dec), torch.empty_like(p)
    pull = torch.zeros_like(x)
    for (low, high), each in zip(reversed(blocks), reversed(errors), strict=True):
        pull = torch.add(pull, each, alpha=scale)
        torch.mm(codes[:, low:high].T, pull, out=rows_grad[low:high])
        if len(blocks) == 1:
            torch.mm(pull, W_dec.T, out=codes_grad)
        else:
            codes_grad[:, low:high] = pull @ W_dec[low:high].T
    if l1:
        loss = loss + l1 * (sums @ norms) / len(x)
        codes_grad += norms * (l1 / len(x))
        rows_grad += W_dec * (sums * (l1 / len(x)) / norms)[:, None]
    codes_grad = torch.ops.aten.threshold_backward(codes_grad, codes, 0)
    if revival is not None and dead is not None and dead.any():
        unselected = p[:, dead].relu()
        if revival.k < unselected.shape[1]:
            best = unselected * norms[dead]
            least = best.topk(revival.k, dim=1).values[:, -1:]
            unselected *= best >= least
        rest = torch.addmm(errors[-1], unselected, W_dec[dead])  # minus what is left, reconstructed
        loss = loss + revival.coefficient * rest.pow(2).sum() / len(x)
        rest *= revival.coefficient * scale
        rows_grad[dead] += unselected.T @ rest
        codes_grad[:, dead] += (rest @ W_dec[dead].T) * (unselected > 0)
    bias_grad = codes_grad.sum(dim=0)
    sae.W_enc.grad = centred.T @ codes_grad
    sae.b_enc.grad = bias_grad
    sae.W_dec.grad = rows_grad
    sae.b_dec.grad = pull.sum(dim=0) - W_enc @ bias_grad
    return Step(loss, sums > 0)
