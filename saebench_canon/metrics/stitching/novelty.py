"""Novel latents, by two decoders alone: neighbours, sums, components, and what peers have too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import max_cosine, tied
from saebench_canon.kernels.nnomp import pursue
from saebench_canon.kernels.nulls import covariance_matched
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.shared.live_rows import live_latents
from saebench_canon.metrics.stitching.interpolation import Graph, build_graph
from saebench_canon.metrics.stitching.pairs import Pair
from saebench_canon.plugin.metric import Undefined, Value
from saebench_canon.plugin.sae import CanonicalSAE

Number = float | Value | Undefined
NULL_ROWS = 4096  # of a random dictionary, at most
LOW = 0.05  # the quantile of the null's span residual that is reported


@dataclass(frozen=True, eq=False)
class Comparison:
    """Each live large latent compared with the small SAE, [live] in their order."""

    cosine: Tensor
    nearest: Tensor
    residual: Tensor
    novel: Tensor
    graph: Graph
    scores: dict[str, Number]

    def columns(self, pair: Pair) -> dict[str, Tensor | None]:
        """The columns of the table of latents."""
        nan = torch.full((len(self.cosine),), torch.nan, dtype=torch.float64)
        return {
            "latent": pair.live1.nonzero()[:, 0],
            "max_cos": self.cosine,
            "nearest": pair.live0.nonzero()[:, 0][self.nearest],
            "density": nan,
            "delta_mse": nan,
            "delta_mse_fixed_bias": nan,
            "span_residual": self.residual,
            "novel": self.novel,
        }


def compare(pair: Pair, threshold: float, span_atoms: int) -> Comparison:
    """Largest cosines with the small SAE, residuals of pursuit, and the graph at the threshold."""
    cosine, nearest = max_cosine(pair.rows1, pair.rows0)
    cosine = tied(cosine)
    novel = cosine < threshold
    residual = pursue(pair.rows1, pair.rows0, count=span_atoms).residual
    graph = build_graph(pair.small.W_dec, pair.large.W_dec, pair.live0, pair.live1, threshold)
    scores: dict[str, Number] = {
        "novel_share": float(novel.double().mean()),
        "orphan_share": len(graph.orphans) / len(pair.rows0),
        "span_residual": float(residual.mean()),
    }
    return Comparison(cosine, nearest, residual, novel, graph, scores)


def found_again(rows: Tensor, peers: Sequence[Tensor], threshold: float) -> Tensor:
    """Which rows [m, d] have a cosine of θ or more with a row of every peer [mᵢ, d]; [m] bool."""
    in_every_peer = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    for peer in peers:
        if len(peer) == 0:
            return torch.zeros_like(in_every_peer)
        cosines, _ = max_cosine(rows, peer.to(rows))
        in_every_peer &= tied(cosines) >= threshold
    return in_every_peer


def reproducible(
    pair: Pair,
    peers: tuple[CanonicalSAE, ...],
    codes: tuple[Codes, ...] | None,
    threshold: float,
) -> Tensor | None:
    """Which live large latents every peer also has, [live] bool; None without peers."""
    if not peers:
        return None
    all_codes = codes or (None,) * len(peers)
    rows = [
        peer.W_dec[live_latents(peer, peer_codes)]
        for peer, peer_codes in zip(peers, all_codes, strict=True)
    ]
    return found_again(pair.rows1, rows, threshold)


def stability(reproducible: Tensor | None, unexplained: Tensor) -> dict[str, Number]:
    """The scores of peers; `unexplained` [live] bool are novel latents, not sums of small ones."""
    if reproducible is None:
        none = Undefined('needs peers: peers = "seed" in the metric\'s table, and other seeds')
        return {"reproducible_share": none, "stable_novel_share": none, "stable_gain": none}
    count = int(reproducible.sum())
    share: Number = Undefined("no latent is found again by every peer")
    if count:
        share = float((reproducible & unexplained).sum()) / count
    return {"reproducible_share": count / len(reproducible), "stable_novel_share": share}


@dataclass(frozen=True, eq=False)
class Null:
    """Random unit rows with the large decoder's mean and covariance, at most 4096 of them.

    `cosine` and `residual` compare them with the small SAE's live rows.
    """

    rows: Tensor
    cosine: Tensor
    residual: Tensor


def null_of(pair: Pair, span_atoms: int, seed: int) -> Null:
    """The random dictionary of a pair."""
    drawn = covariance_matched(
        pair.rows1, generator(seed, "stitching"), count=min(len(pair.rows1), NULL_ROWS)
    )
    rows = drawn.to(pair.rows1)
    cosine, _ = max_cosine(rows, pair.rows0)
    return Null(rows, tied(cosine), pursue(rows, pair.rows0, count=span_atoms).residual)


def null_scores(null: Null, threshold: float) -> dict[str, Number]:
    """The decoders' scores with the random dictionary in the place of the large SAE."""
    return {
        "novel_share_null": float((null.cosine < threshold).double().mean()),
        "span_residual_null": float(null.residual.mean()),
        "span_residual_null_low": float(torch.quantile(null.residual.double(), LOW)),
    }


def components(graph: Graph) -> pd.DataFrame:
    """Which large latents replace which small ones."""
    return pd.DataFrame({
        "component": range(len(graph.components)),
        "small": [list(below) for below, _ in graph.components],
        "large": [list(above) for _, above in graph.components],
        "small_size": [len(below) for below, _ in graph.components],
        "large_size": [len(above) for _, above in graph.components],
    })  # fmt: skip
