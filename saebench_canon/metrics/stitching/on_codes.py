"""What stitching reads off activations: errors with latents added, gains, controls, paths."""

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
    Step,
    Union,
    paths,
    random_order,
    steps_of,
    union,
)
from saebench_canon.metrics.stitching.novelty import insert_at_best_scales
from saebench_canon.metrics.stitching.on_rows import Look, Null, Pair
from saebench_canon.plugin.acts import Acts
from saebench_canon.plugin.metric import Undefined, Value

Number = float | Value | Undefined
CONTROL_TOKENS = 8192  # that controls are read on, at most, in whole documents where there are many
DRAWS = 200  # of the bootstrap over latents
EXACT = Undefined("the smaller SAE makes no error")


@dataclass(frozen=True, eq=False)
class OnData:
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
    def first(self) -> tuple[Codes, Tensor, Tensor]:
        """The small SAE as kernels take it."""
        return self.codes0, self.pair.small.W_dec, self.pair.small.b_dec

    @property
    def second(self) -> tuple[Codes, Tensor, Tensor]:
        """The large SAE as kernels take it."""
        return self.codes1, self.pair.large.W_dec, self.pair.large.b_dec

    def whole(self, live: Tensor) -> Tensor:
        """A mask over live large latents as one over all of them, [m1] bool."""
        mask = torch.zeros_like(self.pair.live1)
        mask[self.pair.live1] = live.to(mask.device)
        return mask


@dataclass(frozen=True, eq=False)
class Added:
    """Scores and columns of adding large latents to the small SAE, alone and together."""

    scores: dict[str, Number]
    columns: dict[str, Tensor]
    factor: float  # on all codes of the small SAE, that makes its error least


def adding(on: OnData, look: Look) -> Added:
    """One pass: the errors of both SAEs and of the stitched one, and each latent's change."""
    index, count = on.index
    passed = kernel.stitch(on.acts.x, index, count, on.first, on.second, on.whole(look.novel))
    live, rows1, bias1 = on.pair.live1, on.pair.large.W_dec, on.pair.large.b_dec
    alpha = kernel.share_of_small(int(on.pair.live0.sum()), 1)
    shift = (1 - alpha) * (bias1.double() - on.pair.small.b_dec.double())
    eq5 = kernel.delta_mse(passed, rows1, shift)[live]
    fixed = kernel.delta_mse(passed, rows1, torch.zeros_like(shift))[live]
    cells = passed.tokens * on.pair.small.d
    agree = Undefined("adding any latent changes the MSE in the same direction")
    ranked = {
        name: kernel.auc(look.cosine, delta < 0)
        for name, delta in (("auc", fixed), ("auc_eq5", eq5))
    }
    best = kernel.best_threshold(look.cosine, fixed < 0)
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
        **{name: agree if found is None else found for name, found in ranked.items()},
    }
    density = on.codes1.counts[live].double() / len(on.codes1)
    columns = {"density": density, "delta_mse": eq5, "delta_mse_fixed_bias": fixed}
    return Added(scores, columns, 1.0 if exact else kernel.best_factor(passed.small_fit))


def gains(on: OnData, strange: Tensor, again: Tensor | None, factor: float) -> dict[str, Number]:
    """What latents are worth at their best scales, beside small codes at theirs."""
    scores: dict[str, Number] = {"residual_gain": best_gain(on, strange, factor)}
    if again is not None:
        scores["stable_gain"] = best_gain(on, strange & again, factor)
    return scores


def best_gain(on: OnData, chosen: Tensor, factor: float) -> Number:
    """Relative drop of the small SAE's error from the live large latents chosen [live] bool.

    The small SAE's codes carry the factor: else any latent makes up for codes that are too small.
    """
    index, count = on.index
    codes1, rows1, _ = on.second
    found = insert_at_best_scales(
        on.acts.x, index, count, _scaled(on.first, factor), (codes1, rows1), on.whole(chosen)
    )
    scored = found.scored
    if not bool(scored.any()):
        return Undefined("one document: none is left to score scales on")
    if float(found.without[scored].sum()) == 0:
        return EXACT
    return complement(ratio(found.inserted[scored], found.without[scored]))


def _scaled(small: tuple[Codes, Tensor, Tensor], factor: float) -> tuple[Codes, Tensor, Tensor]:
    """The small SAE with all its codes times a factor, which its rows carry."""
    codes, rows, bias = small
    return codes, rows * factor, bias


def controls(
    on: OnData, look: Look, null: Null, threshold: float, span_least: float, seed: int
) -> dict[str, Number]:
    """The same scores where nothing was learnt, on some of the documents."""
    few = _sampled(on)
    index, count = few.index
    ranked = look.cosine[look.novel].argsort(stable=True)  # whatever the order of the latents
    novel = on.whole(look.novel).nonzero()[:, 0][ranked]
    turned = few.pair.large.W_dec.clone()
    order = torch.randperm(len(novel), generator=generator(seed, "permuted"))
    turned[novel] = turned[novel[order.to(novel.device)]]
    codes1, _, bias1 = few.second
    permuted = kernel.stitch(
        few.acts.x, index, count, few.first, (codes1, turned, bias1), on.whole(look.novel)
    )
    rows = null.rows
    density = on.codes1.counts[on.pair.live1].double() / len(on.codes1)
    density = density.sort(descending=True).values[: len(rows)]
    codes = tied_codes(few.acts.x, rows, bias1, density)
    far = null.cosine < threshold
    passed = kernel.stitch(few.acts.x, index, count, few.first, (codes, rows, bias1), far)
    shift = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    delta = kernel.delta_mse(passed, rows, shift)[codes.live]
    if float(passed.small.sum()) == 0:
        names = ("novel_gain_null", "residual_gain_null", "novel_gain_permuted")
        return {**dict.fromkeys(names, EXACT), "helpful_share_null": 0.0}
    left = null.residual > span_least
    small = _scaled(few.first, kernel.best_factor(passed.small_fit))
    inserted = insert_at_best_scales(few.acts.x, index, count, small, (codes, rows), far & left)
    scored = inserted.scored
    alone = Undefined("one document: none is left to score scales on")
    silent = Undefined("no random latent is active")
    return {
        "novel_gain_permuted": float(1 - permuted.stitched.sum() / permuted.small.sum()),
        "novel_gain_null": float(1 - passed.stitched.sum() / passed.small.sum()),
        "helpful_share_null": float((delta < 0).double().mean()) if len(delta) else silent,
        "residual_gain_null": alone if not bool(scored.any()) else float(
            1 - inserted.inserted[scored].sum() / inserted.without[scored].sum()
        ),
    }  # fmt: skip


def _sampled(on: OnData) -> OnData:
    """The pair on every so-manieth document, so that about 8192 tokens are left."""
    every = -(-len(on.acts) // CONTROL_TOKENS)
    if every == 1:
        return on
    index, count = on.index
    every = min(every, max(1, count // 2))
    kept = (index % every == 0).nonzero()[:, 0]
    return OnData(
        on.pair,
        on.codes0.at(kept),
        on.codes1.at(kept),
        Acts(on.acts.x[kept], on.acts.doc[kept]),
    )


def threshold_study(
    look: Look, added: Added, threshold: float, seed: int
) -> dict[str, pd.DataFrame]:
    """ROC curves, and the AUC's interval with the confusion at θ, for both biases (Fig. 13)."""
    curves, summary = [], []
    for name, column in (("fixed", "delta_mse_fixed_bias"), ("eq5", "delta_mse")):
        helps = (added.columns[column] < 0).cpu()
        low = look.cosine.cpu()
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
    on: OnData, look: Look, orders: int, orderings: tuple[str, ...], seed: int
) -> tuple[pd.DataFrame, list[str]]:
    """The path's points in every ordering, and sentences on orderings that were left out."""
    both = union(on.acts.x, on.first, on.second)
    named: list[tuple[str, int, tuple[Step, ...]]] = []
    left_out = []
    for name in orderings:
        ordered = list(_orders(name, on, look, both, orders, seed))
        if not ordered and name == "greedy":
            left_out.append("no greedy order: its latents share more than memory is given for")
        named += [
            (name, number, steps_of(look.graph, *each)) for number, each in enumerate(ordered)
        ]
    frames = []
    for (name, number, steps), path in zip(
        named, paths(both, [each for _, _, each in named]), strict=True
    ):
        every: list[Step] = [Step("start"), *steps]
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
    whole = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=empty)
    return whole, left_out


def _orders(
    name: str, on: OnData, look: Look, both: Union, orders: int, seed: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Novel latents and components, each in an order of the name."""
    found = look.graph
    if name == "greedy":
        best = greedy(both, found)
        if best is not None:
            yield best
    elif name == "max_cos":
        latents = on.pair.live1.nonzero()[:, 0].tolist()
        cosine: dict[int, Any] = dict(zip(latents, look.cosine.tolist(), strict=True))
        novel = sorted(found.novel, key=lambda latent: (cosine[latent], latent))
        nearest = [max(cosine[latent] for latent in above) for _, above in found.components]
        yield novel, sorted(range(len(nearest)), key=lambda at: (nearest[at], at))
    else:
        for number in range(orders):
            yield random_order(found, seed, number)
