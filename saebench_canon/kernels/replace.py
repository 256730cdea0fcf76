"""A meta-SAE with other directions in its decoder, and the overlap of its graph with cosines.

Leask et al. 2025 compare the meta-SAE of a large SAE's decoder rows with a smaller SAE in this way
(section 4; Fig. 22 and 23). Meta-SAEs here are those of one dictionary (B = 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saebench_canon.kernels.batchtopk_steps import select
from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import tied, unit
from saebench_canon.kernels.meta_sae import FLOOR, PASSES, THRESHOLD_BATCHES, MetaSAE, gradients
from saebench_canon.kernels.meta_training import Training
from saebench_canon.progress import track

BLOCK = 2**23  # codes or cosines in memory at once, 64 MiB in float64


@dataclass(frozen=True)
class Quality:
    """How well rows are rebuilt: centred explained variance, nan if they do not vary, and MSE."""

    explained_variance: float
    mse: float


def encoded(model: MetaSAE, rows: Tensor, *, block: int = BLOCK) -> Codes:
    """Sparse codes of rows [m, d] at the inference threshold, a block of rows at a time."""
    height = max(1, block // model.W_dec.shape[1])
    parts = torch.split(rows, height)
    return Codes.concatenate([Codes.from_dense(model.encode(part[None])[0]) for part in parts])


def among(model: MetaSAE, latents: Tensor) -> MetaSAE:
    """The meta-SAE of the latents where the mask [M] is true."""
    b_enc = None if model.b_enc is None else model.b_enc[:, latents]
    return replace(model, W_enc=model.W_enc[:, latents], W_dec=model.W_dec[:, latents], b_enc=b_enc)


def turned(model: MetaSAE, directions: Tensor) -> MetaSAE:
    """The meta-SAE with other directions [M, d], of any norms; its rows keep their lengths."""
    lengths = torch.linalg.vector_norm(model.W_dec[0].double(), dim=1, keepdim=True)
    return replace(model, W_dec=(unit(directions) * lengths).to(model.W_dec)[None])


def quality(model: MetaSAE, rows: Tensor, codes: Codes, *, block: int = BLOCK) -> Quality:
    """How well rows [m, d] are rebuilt by a meta-SAE's decoder of these codes, in float64."""
    mean = rows.double().mean(dim=0)
    squared_error = total = square = 0.0
    height = max(1, block // rows.shape[1])
    for start in range(0, len(rows), height):
        part = rows[start : start + height].double()
        rebuilt = codes.rows(start, start + height).decode(model.W_dec[0].double())
        squared_error += float((part - rebuilt - model.b_dec[0].double()).pow(2).sum())
        total += float((part - mean).pow(2).sum())
        square += float(part.pow(2).sum())
    varies = total > 1e-12 * square
    return Quality(1 - squared_error / total if varies else torch.nan, squared_error / rows.numel())


def refit(
    model: MetaSAE, rows: Tensor, training: Training, generator: torch.Generator, *, title: str
) -> MetaSAE:
    """Train the encoder and b_dec further on rows [m, d], with the decoder fixed.

    The loss is the mean of ‖w − ŵ‖² with a batch's selection, by Adam, as in the meta-SAE's own
    training but without the loss that revives dead latents. The threshold is computed anew (eq. 8).
    """
    M, d = model.W_dec.shape[1:]
    W_enc, W_dec, b_dec = model.W_enc[0].clone(), model.W_dec[0], model.b_dec.clone()
    b_enc = b_dec.new_zeros(M) if model.b_enc is None else model.b_enc[0].clone()
    learnt = [W_enc, b_dec] if model.b_enc is None else [W_enc, b_dec, b_enc]
    adam = torch.optim.Adam(learnt, lr=training.lr, betas=training.betas)
    batches = _batches(rows, training.batch, generator)
    least = [0.0]
    for _ in track(range(training.steps), title, training.steps):
        x = next(batches)[None]
        z = (x - b_dec[:, None]) @ W_enc.T + b_enc
        selected = select(z, training.k, [FLOOR * least[0]])
        least = selected.least
        gradient = gradients(x, W_enc, W_dec, b_dec, selected)
        W_enc.grad, b_dec.grad = gradient.W_enc.view(M, d), gradient.b_dec.view(1, d)
        b_enc.grad = gradient.code_gradient.view(M)
        adam.step()
    count = 1 if len(rows) <= training.batch else THRESHOLD_BATCHES
    levels = []
    for _ in range(count):
        z = (next(batches)[None] - b_dec[:, None]) @ W_enc.T + b_enc
        least = select(z, training.k, [FLOOR * least[0]]).least
        levels += least
    threshold = torch.tensor([sum(levels) / count * PASSES]).to(b_dec)
    new_bias = None if model.b_enc is None else b_enc[None]
    return MetaSAE(W_enc[None], model.W_dec, b_dec, threshold, b_enc=new_bias)


def _batches(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches without a row twice: all rows, or the whole batches of random permutations."""
    while len(rows) <= size:
        yield rows
    while True:
        order = torch.randperm(len(rows), generator=generator)
        for chosen in torch.split(order, size)[: len(rows) // size]:
            yield rows[chosen]


def strongest(rows: Tensor, others: Tensor, count: int, *, block: int = BLOCK) -> Tensor:
    """The `count` largest cosines of rows [m, d] with others [m2, d], falling, float64.

    Cosines are rounded as for every decision, and all that tie with the last are included.
    """
    right = unit(others)
    best = right.new_empty(0)
    least = -torch.inf
    for part in torch.split(rows, max(1, block // len(others))):
        cosines = tied(unit(part) @ right.T).flatten()
        best = torch.cat([best, cosines[cosines >= least]])
        if len(best) > count:
            least = float(best.kthvalue(len(best) - count + 1).values)
            best = best[best >= least]
    return best.sort(descending=True).values


def overlap(edges: Tensor, rows: Tensor, others: Tensor, cosines: Tensor) -> float:
    """The share of e edges that are among the e largest cosines.

    `edges` [e, 2] are different pairs (row, column) of rows and others; `cosines` are the result of
    `strongest` with a count of e or more. Pairs that tie with the last one are in it with equal
    chance.
    """
    lengths, widths = (torch.linalg.vector_norm(table.double(), dim=1) for table in (rows, others))
    edge_cosines = []
    for row, column in (part.T for part in torch.split(edges, max(1, BLOCK // rows.shape[1]))):
        dots = (rows[row].double() * others[column].double()).sum(dim=1)
        edge_cosines.append(dots / (lengths[row] * widths[column]))
    cosine = tied(torch.cat(edge_cosines))
    cut = cosines[len(edges) - 1]
    room = (len(edges) - int((cosines > cut).sum())) / int((cosines == cut).sum())
    return (int((cosine > cut).sum()) + room * int((cosine == cut).sum())) / len(edges)
