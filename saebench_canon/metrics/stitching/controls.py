"""The gains where nothing was learnt: of a random dictionary, and of permuted directions."""

from __future__ import annotations

import torch
from scipy.special import ndtri
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.stitching import adding
from saebench_canon.metrics.stitching.best_scales import insert_at_best_scales
from saebench_canon.metrics.stitching.gains import EXACT, Number, scaled
from saebench_canon.metrics.stitching.novelty import Comparison, Null
from saebench_canon.metrics.stitching.pairs import CodedPair
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.metric import Undefined

BLOCK = 2**24  # pre-activations in memory at once
CONTROL_TOKENS = 8192  # about as many for controls, in whole documents


def tied_codes(x: Tensor, rows: Tensor, bias: Tensor, density: Tensor) -> Codes:
    """Codes of rows that encode as they decode: `relu((x − b)·w − t)`, sparse, of x [n, d].

    A normal variable with the mean and variance of a row's pre-activations exceeds the row's
    threshold t with the probability `density` [m].
    """
    dtype = torch.promote_types(rows.dtype, torch.float32)
    rows, bias = rows.to(dtype), bias.to(dtype)
    height = max(1, BLOCK // len(rows))
    first = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    second = first.clone()
    for part in torch.split(x, height):
        z = (part.to(rows) - bias) @ rows.T
        first += z.sum(dim=0, dtype=torch.float64)
        second += (z * z).sum(dim=0, dtype=torch.float64)
    mean = first / len(x)
    spread = (second / len(x) - mean**2).clamp(min=0).sqrt()
    rare = density.double().clamp(1 / (2 * len(x)), 1 - 1 / (2 * len(x)))
    upper = torch.from_numpy(ndtri(1 - rare.cpu().numpy())).to(mean)
    level = (mean + upper * spread).to(dtype)
    parts = [
        Codes.from_dense(((part.to(rows) - bias) @ rows.T - level).relu())
        for part in torch.split(x, height)
    ]
    return Codes.concatenate(parts)


def controls(
    coded: CodedPair,
    compared: Comparison,
    null: Null,
    threshold: float,
    span_least: float,
    seed: int,
) -> dict[str, Number]:
    """The scores of permuted directions and of the random dictionary, on some of the documents."""
    few = _sampled(coded)
    index, count = few.index
    # ranked by cosine, so that the order of the latents does not matter
    ranked = compared.cosine[compared.novel].argsort(stable=True)
    novel = coded.on_all_latents(compared.novel).nonzero()[:, 0][ranked]
    turned = few.pair.large.W_dec.clone()
    order = torch.randperm(len(novel), generator=generator(seed, "permuted"))
    turned[novel] = turned[novel[order.to(novel.device)]]
    codes1, _, bias1 = few.large
    permuted = adding.stitch(
        few.acts.x,
        index,
        count,
        few.small,
        (codes1, turned, bias1),
        coded.on_all_latents(compared.novel),
    )
    rows = null.rows
    density = coded.codes1.counts[coded.pair.live1].double() / len(coded.codes1)
    density = density.sort(descending=True).values[: len(rows)]
    codes = tied_codes(few.acts.x, rows, bias1, density)
    far = null.cosine < threshold
    passed = adding.stitch(few.acts.x, index, count, few.small, (codes, rows, bias1), far)
    shift = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    delta = adding.delta_mse(passed, rows, shift)[codes.live]
    if float(passed.small.sum()) == 0:
        names = ("novel_gain_null", "residual_gain_null", "novel_gain_permuted")
        return {**dict.fromkeys(names, EXACT), "helpful_share_null": 0.0}
    unexplained = null.residual > span_least
    small = scaled(few.small, adding.best_factor(passed.small_fit))
    inserted = insert_at_best_scales(
        few.acts.x, index, count, small, (codes, rows), far & unexplained
    )
    scored = inserted.scored
    alone = Undefined("one document: none is left to score the scales on")
    silent = Undefined("no random latent is active")
    return {
        "novel_gain_permuted": float(1 - permuted.stitched.sum() / permuted.small.sum()),
        "novel_gain_null": float(1 - passed.stitched.sum() / passed.small.sum()),
        "helpful_share_null": float((delta < 0).double().mean()) if len(delta) else silent,
        "residual_gain_null": alone if not bool(scored.any()) else float(
            1 - inserted.inserted[scored].sum() / inserted.without[scored].sum()
        ),
    }  # fmt: skip


def _sampled(coded: CodedPair) -> CodedPair:
    """The pair on evenly spaced documents with about 8192 tokens in total."""
    every = -(-len(coded.acts) // CONTROL_TOKENS)
    if every == 1:
        return coded
    index, count = coded.index
    every = min(every, max(1, count // 2))
    tokens = (index % every == 0).nonzero()[:, 0]
    return CodedPair(
        coded.pair,
        coded.codes0.at(tokens),
        coded.codes1.at(tokens),
        Acts(coded.acts.x[tokens], coded.acts.doc[tokens]),
    )
