"""The points of a path from the small SAE to the large one, in every ordering (Fig. 5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from saebench_canon.metrics.stitching.greedy_order import greedy
from saebench_canon.metrics.stitching.interpolation import (
    PathStep,
    Union,
    paths,
    random_order,
    steps_of,
    union,
)
from saebench_canon.metrics.stitching.novelty import Comparison
from saebench_canon.metrics.stitching.pairs import CodedPair


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
