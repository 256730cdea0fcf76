"""A made-up run: 3 architectures, 3 widths, 3 seeds, with numbers of a plausible size."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd

from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.registry import load_registry

ARCHS, WIDTHS, SEEDS = ("relu", "topk", "batchtopk"), (128, 256, 512), (0, 1, 2)
Member = dict[str, Any]


NEEDS_PEERS = ("stable_novel_share", "stable_gain", "reproducible_share")


METRICS = (
    "fidelity", "stitching", "meta_sae", "composition", "seed_matching", "comparison", "insertion",
)  # fmt: skip
MISSING = {1: 0.3, 2: 0.4}  # of a larger SAE's latents in one so many sizes smaller
SUMS = {"relu": 0.0, "topk": 0.38, "batchtopk": 0.17}  # of a larger SAE's latents


def declared() -> list[Metric]:
    """The metrics of the run as they are declared."""
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
        run_rows += family([members[w, s] for w in widths for s in seeds])
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
                scores |= {"found_by_two": shared**2, "found_by_two_null": 0.001}
                scores |= {"found_by_one": 2 * shared * (1 - shared), "found_by_one_null": 0.006}
                scores |= {"found_by_none": (1 - shared) ** 2, "found_by_none_null": 0.993}
                spread = {
                    "stderr": 0.008 + 0.002 * arch_index,
                    "n": len(seeds),
                    "unit": "training seed",
                }
                run_rows += case(
                    "seed_matching", "seed_matching", "group", "group:seed", group, scores, **spread
                )
    return run_rows


def family(saes: Sequence[Member]) -> list[dict[str, Any]]:
    """All pairs of SAEs of one architecture, compared, and what adding latents is worth."""
    run_rows: list[dict[str, Any]] = []
    settings = dict(load_registry().metrics["comparison"].settings)
    for small, large in combinations(saes, 2):
        sides = {
            f"{name}{end}": value
            for end in ("", "_small", "_centred", "_small_centred")
            for name, value in {
                "sum_least": 0.6, "planted_recall": 0.93, "chance_residual": 0.55,
                "sum_share_parent": 0.01,
            }.items()
        }  # fmt: skip
        rows_of_saes = {
            f"{name}_{side}": value
            for side, member in (("small", small), ("large", large))
            for name, value in {
                "distinct": float(latents(member)), "duplicates": 0.0, "mean_row_norm": 0.05,
            }.items()
        }  # fmt: skip
        pair = f"{name_of(small)}|{name_of(large)}"
        run_rows += case(
            "comparison", "comparison", "pair", "family", [small, large], sides | rows_of_saes,
            id=f"comparison {pair}", settings=settings,
        )  # fmt: skip
        both = [(small, large)]
        if small["width"] == large["width"]:
            both.append((large, small))
        for receiver, giver in both:
            apart = receiver["width"] != giver["width"]
            noise = wobble(receiver["seed"] + receiver["width"], giver["seed"])
            gains = {
                "stable_gain": (0.2 if apart else 0.01) + noise / 10,
                "small_mse_rescaled": 0.5 - 0.06 * math.log2(receiver["width"] / 128),
                "large_mse_rescaled": 0.5 - 0.06 * math.log2(giver["width"] / 128),
            }
            run_rows += case(
                "insertion", "insertion", "pair", "steps", [receiver, giver], gains,
                id=f"insertion {name_of(receiver)}|{name_of(giver)}", settings=settings,
            )  # fmt: skip
    return run_rows


def tables(case_id: str, name: str) -> pd.DataFrame | None:
    """The tables of the family's cases, as a store would read them."""
    kind, _, pair = case_id.partition(" ")
    if kind not in ("comparison", "insertion"):
        return None
    small, large = (member_of(text) for text in pair.split("|"))
    if kind == "insertion":
        removed = 0.2 if small["width"] != large["width"] else 0.01
        return pd.DataFrame(
            {"document": range(1, 20, 2), "error": [1.0] * 10, "removed": [removed] * 10}
        )
    if name == "start":
        return pd.DataFrame({"live": [40], "mutual": [30], "same_index": [1], "sorted": [False]})
    of, inside = (large, small) if name == "large" else (small, large)
    return in_other(of, inside)


def in_other(of: Member, inside: Member) -> pd.DataFrame:
    """The latents of one SAE in another: some missing in a smaller one, and some sums of it."""
    count = latents(of)
    rng = np.random.default_rng(zlib.crc32(f"{name_of(of)} in {name_of(inside)}".encode()))
    steps = round(math.log2(of["width"] / inside["width"]))
    share = MISSING.get(steps, 0.05)
    missing = np.arange(count) < round(share * count) if steps > 0 else rng.random(count) < share
    cosine = np.where(missing, 0.3, 0.95)
    explained = cosine**2
    sums = ~missing & (rng.random(count) < (SUMS[of["arch"]] if steps > 0 else 0.02))
    first = np.where(sums, 0.4, explained)
    explained = np.where(sums, 0.92, explained)
    columns = {
        "cosine": cosine, "first": first, "explained": explained,
        "gated": np.zeros(count, bool), "atoms": [[0, 1]] * count,
    }  # fmt: skip
    centred = {f"{name}_centred": column for name, column in columns.items()}
    return pd.DataFrame({"latent": range(count), **columns, **centred})


def latents(member: Member) -> int:
    """So many live latents a made-up SAE has."""
    return 100 + 50 * round(math.log2(member["width"] / 128))


def name_of(member: Member) -> str:
    return f"{member['arch']}-w{member['width']}-s{member['seed']}"


def member_of(name: str) -> dict[str, Any]:
    arch, width, seed = name.split("-")
    return {"arch": arch, "width": int(width[1:]), "seed": int(seed[1:])}


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
    merging = 0.31 - 0.02 * math.log2(small / 128) + wobble(seed + 2, small)
    merged = {"merged_share": merging, "merged_null": 0.02}
    recall = {"planted_recall": 0.99 + wobble(seed, small) / 3}
    return {**sums(share + wobble(small, seed + 1), 0.03), **merged, **recall}


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
