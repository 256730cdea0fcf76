"""Stitching on activations: errors with latents added, gains, controls, and paths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.resampling import documents, ratio
from saebench_canon.kernels.seeds import generator
from saebench_canon.metrics.shared.ratios import complement, of_documents
from saebench_canon.metrics.stitching import gains as kernel
from saebench_canon.metrics.stitching.controls import tied_codes
from saebench_canon.metrics.stitching.greedy import greedy
from saebench_canon.metrics.stitching.interpolation import (
    PathStep,
    Union,
    paths,
    random_order,
    steps_of,
    union,
)
from saebench_canon.metrics.stitching.novelty import insert_at_best_scales
from saebench_canon.metrics.stitching.on_rows import Comparison, Null, Pair
from saebench_canon.plugin.acts import Acts
from saebench_canon.plugin.metric import Undefined, Value

Number = float | Value | Undefined
CONTROL_TOKENS = 8192  # about as many for controls, in whole documents
DRAWS = 200  # of the bootstrap over latents
EXACT = Undefined("the smaller SAE makes no error")


@dataclass(frozen=True, eq=False)
class CodedPair:
    """A pair with both SAEs' codes of the same activations."""

    pair: Pair
    codes0: Codes
    codes1: Codes
    acts: Acts

    @cached_property
    def index(self) -> tuple[Tensor, int]:
        """Each token's document and their number."""
        return documents(self.acts.doc)

    @property
    def small(self) -> tuple[Codes, Tensor, Tensor]:
        """The small SAE's codes, decoder rows and bias."""
        return self.codes0, self.pair.small.W_dec, self.pair.small.b_dec

    @property
    def large(self) -> tuple[Codes, Tensor, Tensor]:
        """The large SAE's codes, decoder rows and bias."""
        return self.codes1, self.pair.large.W_dec, self.pair.large.b_dec

    def on_all_latents(self, live: Tensor) -> Tensor:
        """A mask over live large latents, extended to all of them, [m1] bool."""
        mask = torch.zeros_like(self.pair.live1)
        mask[self.pair.live1] = live.to(mask.device)
        return mask


@dataclass(frozen=True, eq=False)
class Added:
    """Scores and columns of adding large latents to the small SAE, alone and together."""

    scores: dict[str, Number]
    columns: dict[str, Tensor]
    factor: float  # on all codes of the small SAE, with the least error


def add_latents(coded: CodedPair, compared: Comparison) -> Added:
    """One pass: the errors of both SAEs and of the stitched one, and each latent's ΔMSE."""
    index, count = coded.index
    passed = kernel.stitch(
        coded.acts.x, index, count, coded.small, coded.large, coded.on_all_latents(compared.novel)
    )
    live, rows1, bias1 = coded.pair.live1, coded.pair.large.W_dec, coded.pair.large.b_dec
    alpha = kernel.share_of_small(int(coded.pair.live0.sum()), 1)
    shift = (1 - alpha) * (bias1.double() - coded.pair.small.b_dec.double())
    eq5 = kernel.delta_mse(passed, rows1, shift)[live]
    fixed = kernel.delta_mse(passed, rows1, torch.zeros_like(shift))[live]
    cells = passed.tokens * coded.pair.small.d
    agree = Undefined("adding any latent changes the MSE in the same direction")
    ranked = {
        name: kernel.auc(compared.cosine, delta < 0)
        for name, delta in (("auc", fixed), ("auc_eq5", eq5))
    }
    best = kernel.best_threshold(compared.cosine, fixed < 0)
    exact = bool(passed.small.sum() == 0)
    scores: dict[str, Number] = {
        "small_mse": of_documents(ratio(passed.small, cells)),
        "large_mse": of_documents(ratio(passed.large, cells)),
        "small_mse_rescaled": of_documents(
            ratio(kernel.rescaled(passed.small, passed.small_fit), cells)
        ),
        "large_mse_rescaled": of_documents(
            ratio(kernel.rescaled(passed.large, passed.large_fit), cells)
        ),
        "novel_gain": EXACT if exact else complement(ratio(passed.stitched, passed.small)),
        "helpful_share": float((fixed < 0).double().mean()),
        "helpful_share_eq5": float((eq5 < 0).double().mean()),
        "best_threshold": agree if best is None else best,
        **{name: agree if area is None else area for name, area in ranked.items()},
    }
    density = coded.codes1.counts[live].double() / len(coded.codes1)
    columns = {"density": density, "delta_mse": eq5, "delta_mse_fixed_bias": fixed}
    return Added(scores, columns, 1.0 if exact else kernel.best_factor(passed.small_fit))


def gains(
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
        _scaled(coded.small, factor),
        (codes1, rows1),
        coded.on_all_latents(chosen),
    )
    scored = result.scored
    if not bool(scored.any()):
        return Undefined("one document: none is left to score the scales on")
    if float(result.without[scored].sum()) == 0:
        return EXACT
    return complement(ratio(result.inserted[scored], result.without[scored]))


def _scaled(small: tuple[Codes, Tensor, Tensor], factor: float) -> tuple[Codes, Tensor, Tensor]:
    """The small SAE with all its codes times a factor, applied to its rows."""
    codes, rows, bias = small
    return codes, rows * factor, bias


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
    permuted = kernel.stitch(
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
    passed = kernel.stitch(few.acts.x, index, count, few.small, (codes, rows, bias1), far)
    shift = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    delta = kernel.delta_mse(passed, rows, shift)[codes.live]
    if float(passed.small.sum()) == 0:
        names = ("novel_gain_null", "residual_gain_null", "novel_gain_permuted")
        return {**dict.fromkeys(names, EXACT), "helpful_share_null": 0.0}
    unexplained = null.residual > span_least
    small = _scaled(few.small, kernel.best_factor(passed.small_fit))
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


def threshold_study(
    compared: Comparison, added: Added, threshold: float, seed: int
) -> dict[str, pd.DataFrame]:
    """ROC curves, the AUC's interval, and the confusion at θ, for both biases (Fig. 13)."""
    curves, summary = [], []
    for name, column in (("fixed", "delta_mse_fixed_bias"), ("eq5", "delta_mse")):
        helps = (added.columns[column] < 0).cpu()
        low = compared.cosine.cpu()
        curve = kernel.roc(low, helps)
        curves.append(curve.assign(bias=name))
        interval = kernel.auc_interval(low, helps, generator(seed, "roc", name), DRAWS)
        novel = low < threshold
        summary.append({
            "bias": name,
            "auc": kernel.auc(low, helps),
            "auc_low": interval[0],
            "auc_high": interval[1],
            "best_threshold": kernel.best_threshold(low, helps),
            "threshold": threshold,
            "novel_helps": int((novel & helps).sum()),
            "novel_harms": int((novel & ~helps).sum()),
            "near_helps": int((~novel & helps).sum()),
            "near_harms": int((~novel & ~helps).sum()),
        })  # fmt: skip
    return {"roc": pd.concat(curves, ignore_index=True), "thresholds": pd.DataFrame(summary)}


def follow(
    coded: CodedPair, compared: Comparison, orders: int, orderings: tuple[str, ...], seed: int
) -> tuple[pd.DataFrame, list[str]]:
    """The path's points in every ordering, and notes on orderings that were left out."""
    both = union(coded.acts.x, coded.small, coded.large)
    named: list[tuple[str, int, tuple[PathStep, ...]]] = []
    omitted = []
    for name in orderings:
        ordered = list(_orders(name, coded, compared, both, orders, seed))
        if not ordered and name == "greedy":
            omitted.append("no greedy order: its products of latents exceed the memory limit")
        named += [
            (name, number, steps_of(compared.graph, *order)) for number, order in enumerate(ordered)
        ]
    frames = []
    for (name, number, steps), path in zip(
        named, paths(both, [order for _, _, order in named]), strict=True
    ):
        every: list[PathStep] = [PathStep("start"), *steps]
        frames.append(pd.DataFrame({
            "seed": number,
            "order": name,
            "phase": [step.phase for step in every],
            "step": np.arange(len(every)),
            "latents_in": [list(step.latents_in) for step in every],
            "latents_out": [list(step.latents_out) for step in every],
            "mse": path.mse.numpy(),
            "l0": path.l0.numpy(),
        }))  # fmt: skip
    empty = ["seed", "order", "phase", "step", "latents_in", "latents_out", "mse", "l0"]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=empty)
    return table, omitted


def _orders(
    name: str, coded: CodedPair, compared: Comparison, both: Union, orders: int, seed: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Novel latents and components, once for each order of this name."""
    graph = compared.graph
    if name == "greedy":
        best = greedy(both, graph)
        if best is not None:
            yield best
    elif name == "max_cos":
        latents = coded.pair.live1.nonzero()[:, 0].tolist()
        cosine: dict[int, Any] = dict(zip(latents, compared.cosine.tolist(), strict=True))
        novel = sorted(graph.novel, key=lambda latent: (cosine[latent], latent))
        nearest = [max(cosine[latent] for latent in above) for _, above in graph.components]
        yield novel, sorted(range(len(nearest)), key=lambda number: (nearest[number], number))
    else:
        for number in range(orders):
            yield random_order(graph, seed, number)
