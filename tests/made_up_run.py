"""A made-up run: 3 architectures, 3 widths, 3 seeds, with numbers of a plausible size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.registry import load_registry

ARCHS, WIDTHS, SEEDS = ("relu", "topk", "batchtopk"), (128, 256, 512), (0, 1, 2)
Member = dict[str, Any]


NEEDS_PEERS = ("stable_novel_share", "stable_gain", "reproducible_share")


METRICS = ("fidelity", "stitching", "meta_sae", "composition", "seed_matching")


def declared() -> list[Metric]:
    """The five metrics of the run as they are declared."""
    metrics = load_registry().metrics
    return [metrics[name] for name in METRICS]


def rows(
    *, archs: Sequence[str] = ARCHS, widths: Sequence[int] = WIDTHS, seeds: Sequence[int] = SEEDS
) -> list[dict[str, Any]]:
    """The rows of the whole run, as `show --json` prints them."""
    run_rows: list[dict[str, Any]] = []
    for arch_index, arch in enumerate(archs):
        members = {
            (w, s): {"arch": arch, "width": w, "seed": s, "train_tokens": 2_000_000}
            for w in widths
            for s in seeds
        }
        for (w, s), member in members.items():
            step = math.log2(w / 128)
            ve = 0.70 + 0.05 * step - 0.01 * arch_index + wobble(w, s)
            scores = {
                "mse": 1 - ve,
                "explained_variance": ve,
                "pca_explained_variance": 0.611 + 0.002 * s,
                "l0": 6.2 + 0.3 * arch_index + 10 * wobble(w, s),
                "dead_share": 0.01 + 0.02 * step + abs(wobble(s, w)) / 4,
            }
            run_rows += case("fidelity", "fidelity", "sae", "each", [member], scores)
            run_rows += [
                row("fidelity", "fidelity", "sae", "each", [member], "loss_recovered")
                | {"status": "undefined", "value": None, "reason": "no language model is given"}
            ]
            meta = 0.50 - 0.04 * step + 0.02 * arch_index + wobble(s, w)
            scores = {
                "explained_variance": meta,
                "null_covariance": 0.36,
                "above_null": meta - 0.36,
                "heldout_explained_variance": 0.27 + wobble(w + 1, s),
                "heldout_null": 0.22,
                **sums(0.03 + wobble(w, s + 7), 0.04),
                "planted_recall": 0.86 - 0.05 * step + wobble(s, w + 3),
                "purged_share": 0.02 + abs(wobble(w + 2, s)),
            }
            run_rows += case("meta_sae", "meta_sae", "sae", "each", [member], scores)
        for small, large in pairwise(widths):
            for s in seeds:
                pair = [members[small, s], members[large, s]]
                scores = stitched(large, s, arch_index)
                if len(seeds) == 1:
                    scores = {n: v for n, v in scores.items() if n not in NEEDS_PEERS}
                run_rows += case("ladder", "stitching", "pair", "pairs:width", pair, scores)
                below = decomposed(small, s, arch_index)
                run_rows += case("composition", "composition", "pair", "pairs:width", pair, below)
        for w in widths:
            for s, t in combinations(seeds, 2):
                pair = [members[w, s], members[w, t]]
                scores = stitched(w, s + 2 * t, arch_index)
                scores = {
                    n: v if "null" in n or n == "reproducible_share" else 0.3 * v
                    for n, v in scores.items()
                }
                run_rows += case("noise", "stitching", "pair", "all-pairs:seed", pair, scores)
                composed = decomposed(w, s + 2 * t, arch_index) | sums(
                    0.07 + wobble(w, s + 3 * t), 0.03
                )
                run_rows += case("mixing", "composition", "pair", "all-pairs:seed", pair, composed)
            if len(seeds) > 1:
                group = [members[w, s] for s in seeds]
                shared = 0.96 - 0.09 * arch_index - 0.05 * math.log2(w / 128)
                scores = {"mcc": shared - 0.02, "null_mcc": 0.39}
                scores |= {"shared_share": shared, "null_shared": 0.004}
                spread = {
                    "stderr": 0.008 + 0.002 * arch_index,
                    "n": len(seeds),
                    "unit": "training seed",
                }
                run_rows += case(
                    "seed_matching", "seed_matching", "group", "group:seed", group, scores, **spread
                )
    return run_rows


def stitched(width: int, seed: int, arch_index: int) -> dict[str, float]:
    """The scores of one stitching case."""
    step, noise = math.log2(width / 128), wobble(width, seed)
    return {
        "small_mse": 0.5 - 0.06 * step + noise / 2,
        "large_mse": 0.42 - 0.06 * step + noise / 2,
        "stable_novel_share": 0.29 - 0.11 * step + 0.02 * arch_index + noise,
        "stable_gain": 0.08 - 0.035 * step + noise / 3,
        "reproducible_share": 0.78 - 0.15 * arch_index + noise,
        "span_residual_null_low": 0.61,
        "novel_share": 0.44 - 0.06 * step + 0.03 * arch_index + noise,
        "novel_gain": 0.12 - 0.03 * step + noise / 2,
        "helpful_share": 0.55 + 0.02 * arch_index - noise,
        "span_residual": 0.31 - 0.02 * step + noise / 2,
        "novel_share_null": 0.998,
        "novel_gain_null": -0.41,
        "helpful_share_null": 0.02,
        "span_residual_null": 0.66,
    }


def decomposed(small: int, seed: int, arch_index: int) -> dict[str, float]:
    """The scores of one case of composition: ReLU has no sums, TopK many, BatchTopK some."""
    share = (0.06, 0.38, 0.17)[arch_index % 3] - 0.01 * math.log2(small / 128)
    recall = {"planted_recall": 0.99 + wobble(seed, small) / 3}
    return {**sums(share + wobble(small, seed + 1), 0.03), **recall}


def sums(share: float, null: float) -> dict[str, float]:
    """A share of sums with what it is beyond chance."""
    return {
        "composed_share": share,
        "composed_null": null,
        "composed_excess": (share - null) / (1 - null),
    }


def case(
    label: str,
    metric: str,
    kind: str,
    over: str,
    members: Sequence[Member],
    scores: Mapping[str, float],
    **more: Any,
) -> list[dict[str, Any]]:
    """A measured case: one row a score."""
    return [
        row(label, metric, kind, over, members, score) | {"value": value} | more
        for score, value in scores.items()
    ]


def row(
    label: str, metric: str, kind: str, over: str, members: Sequence[Member], score: str | None
) -> dict[str, Any]:
    """One row, measured, without a value yet."""
    return {
        "suite": "made-up",
        "label": label,
        "metric": metric,
        "score": score,
        "subject": [f"{m['arch']}-w{m['width']}-s{m['seed']}" for m in members],
        "axes": {"arch": members[0]["arch"]},
        "seed": 0,
        "settings": {},
        "value": None,
        "stderr": None,
        "n": None,
        "unit": None,
        "id": "0" * 32,
        "status": "measured",
        "of": kind,
        "over": over,
        "marks": [],
        "reason": None,
        "members": [dict(m) for m in members],
        "data": "docs",
    }


def where(rows: Sequence[Mapping[str, Any]], **values: Any) -> Iterator[Mapping[str, Any]]:
    """The rows whose keys have these values."""
    return (row_ for row_ in rows if all(row_[key] == value for key, value in values.items()))


def wobble(a: int, b: int) -> float:
    """A number within ±.015 that depends on both, the same in every process."""
    return 0.03 * (((a * 7919 + b * 104729) * 2654435761 % 2**32) / 2**32 - 0.5)
