"""Gains: how much less error the smaller SAE makes with latents of the larger one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.resampling import ratio
from saebench_canon.metrics.shared.ratios import complement, of_documents
from saebench_canon.metrics.stitching import adding, roc
from saebench_canon.metrics.stitching.best_scales import insert_at_best_scales
from saebench_canon.metrics.stitching.novelty import Comparison
from saebench_canon.metrics.stitching.pairs import CodedPair
from saebench_canon.plugin.metric import Undefined, Value

Number = float | Value | Undefined
EXACT = Undefined("the smaller SAE makes no error")


@dataclass(frozen=True, eq=False)
class Added:
    """Scores and columns of adding large latents to the small SAE, alone and together."""

    scores: dict[str, Number]
    columns: dict[str, Tensor]
    factor: float  # on all codes of the small SAE, with the least error


def add_latents(coded: CodedPair, compared: Comparison) -> Added:
    """One pass: the errors of both SAEs and of the stitched one, and each latent's ΔMSE."""
    index, count = coded.index
    passed = adding.stitch(
        coded.acts.x, index, count, coded.small, coded.large, coded.on_all_latents(compared.novel)
    )
    live, rows1, bias1 = coded.pair.live1, coded.pair.large.W_dec, coded.pair.large.b_dec
    alpha = adding.share_of_small(int(coded.pair.live0.sum()), 1)
    shift = (1 - alpha) * (bias1.double() - coded.pair.small.b_dec.double())
    eq5 = adding.delta_mse(passed, rows1, shift)[live]
    fixed = adding.delta_mse(passed, rows1, torch.zeros_like(shift))[live]
    cells = passed.tokens * coded.pair.small.d
    agree = Undefined("adding any latent changes the MSE in the same direction")
    ranked = {
        name: roc.auc(compared.cosine, delta < 0)
        for name, delta in (("auc", fixed), ("auc_eq5", eq5))
    }
    best = roc.best_threshold(compared.cosine, fixed < 0)
    exact = bool(passed.small.sum() == 0)
    scores: dict[str, Number] = {
        "small_mse": of_documents(ratio(passed.small, cells)),
        "large_mse": of_documents(ratio(passed.large, cells)),
        "small_mse_rescaled": of_documents(
            ratio(adding.rescaled(passed.small, passed.small_fit), cells)
        ),
        "large_mse_rescaled": of_documents(
            ratio(adding.rescaled(passed.large, passed.large_fit), cells)
        ),
        "novel_gain": EXACT if exact else complement(ratio(passed.stitched, passed.small)),
        "helpful_share": float((fixed < 0).double().mean()),
        "helpful_share_eq5": float((eq5 < 0).double().mean()),
        "best_threshold": agree if best is None else best,
        **{name: agree if area is None else area for name, area in ranked.items()},
    }
    density = coded.codes1.counts[live].double() / len(coded.codes1)
    columns = {"density": density, "delta_mse": eq5, "delta_mse_fixed_bias": fixed}
    return Added(scores, columns, 1.0 if exact else adding.best_factor(passed.small_fit))


def gains_at_best_scales(
    coded: CodedPair, unexplained: Tensor, reproducible: Tensor | None, factor: float
) -> dict[str, Number]:
    """Gains from latents at their best scales, with the small SAE's codes at theirs."""
    scores: dict[str, Number] = {"residual_gain": best_gain(coded, unexplained, factor)}
    if reproducible is not None:
        scores["stable_gain"] = best_gain(coded, unexplained & reproducible, factor)
    return scores


def best_gain(coded: CodedPair, chosen: Tensor, factor: float) -> Number:
    """Relative drop of the small SAE's error from the live large latents chosen [live] bool.

    The small SAE's codes are multiplied by the factor, so that no latent gains by making up for
    codes that are too small.
    """
    index, count = coded.index
    codes1, rows1, _ = coded.large
    result = insert_at_best_scales(
        coded.acts.x,
        index,
        count,
        scaled(coded.small, factor),
        (codes1, rows1),
        coded.on_all_latents(chosen),
    )
    scored = result.scored
    if not bool(scored.any()):
        return Undefined("one document: none is left to score the scales on")
    if float(result.without[scored].sum()) == 0:
        return EXACT
    return complement(ratio(result.inserted[scored], result.without[scored]))


def scaled(small: tuple[Codes, Tensor, Tensor], factor: float) -> tuple[Codes, Tensor, Tensor]:
    """The small SAE with all its codes times a factor, applied to its rows."""
    codes, rows, bias = small
    return codes, rows * factor, bias
