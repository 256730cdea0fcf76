"""What stitching reads off two decoders: neighbours, sums, components, what peers have too."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import max_cosine, tied
from saebench_canon.kernels.nnomp import pursue
from saebench_canon.kernels.nulls import covariance_matched
from saebench_canon.kernels.seeds import generator
from saebench_canon.metrics.stitching.interpolation import Graph, graph
from saebench_canon.metrics.stitching.novelty import found_again
from saebench_canon.plugin.metric import Undefined, Value
from saebench_canon.plugin.sae import CanonicalSAE

Number = float | Value | Undefined
NULL_ROWS = 4096  # of a random dictionary, at most
LOW = 0.05  # the quantile of the null's span residual that is kept


@dataclass(frozen=True, eq=False)
class Pair:
    """Both SAEs on one device, which of their latents are live [m] bool, and the live rows."""

    small: CanonicalSAE
    large: CanonicalSAE
    live0: Tensor
    live1: Tensor
    rows0: Tensor
    rows1: Tensor


@dataclass(frozen=True, eq=False)
class Look:
    """Each live large latent beside the small SAE, [live] in their order."""

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


def pair_of(
    small: CanonicalSAE, large: CanonicalSAE, codes0: Codes | None, codes1: Codes | None
) -> Pair:
    """The pair; without codes every latent counts as live."""
    device = small.W_dec.device
    live0, live1 = (
        torch.ones(each.width, dtype=torch.bool, device=device) if c is None else c.live.to(device)
        for each, c in ((small, codes0), (large, codes1))
    )
    return Pair(small, large, live0, live1, small.W_dec[live0], large.W_dec[live1])


def look(pair: Pair, threshold: float, span_atoms: int) -> Look:
    """Best cosines, what pursuit leaves, and the graph at the threshold."""
    cosine, nearest = max_cosine(pair.rows1, pair.rows0)
    cosine = tied(cosine)
    novel = cosine < threshold
    residual = pursue(pair.rows1, pair.rows0, count=span_atoms).residual
    found = graph(pair.small.W_dec, pair.large.W_dec, pair.live0, pair.live1, threshold)
    scores: dict[str, Number] = {
        "novel_share": float(novel.double().mean()),
        "orphan_share": len(found.orphans) / len(pair.rows0),
        "span_residual": float(residual.mean()),
    }
    return Look(cosine, nearest, residual, novel, found, scores)


def again(
    pair: Pair,
    peers: tuple[CanonicalSAE, ...],
    codes: tuple[Codes, ...] | None,
    threshold: float,
) -> Tensor | None:
    """Which live large latents every peer has too, [live] bool; None without peers."""
    if not peers:
        return None
    rows = [
        peer.W_dec if codes is None else peer.W_dec[codes[at].live.to(peer.W_dec.device)]
        for at, peer in enumerate(peers)
    ]
    return found_again(pair.rows1, rows, threshold)


def stability(again: Tensor | None, strange: Tensor) -> dict[str, Number]:
    """What peers say; `strange` [live] bool are novel latents that are no sums of small ones."""
    if again is None:
        none = Undefined('needs peers: peers = "seed" in the metric\'s table, and other seeds')
        return {"reproducible_share": none, "stable_novel_share": none, "stable_gain": none}
    count = int(again.sum())
    share: Number = Undefined("no latent is found again by every peer")
    if count:
        share = float((again & strange).sum()) / count
    return {"reproducible_share": count / len(again), "stable_novel_share": share}


@dataclass(frozen=True, eq=False)
class Null:
    """Random unit rows with the large decoder's mean and covariance, no more than 4096 of them.

    `cosine` and `residual` are theirs with the small SAE's live rows.
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
    """The scores of decoders on the random dictionary."""
    return {
        "novel_share_null": float((null.cosine < threshold).double().mean()),
        "span_residual_null": float(null.residual.mean()),
        "span_residual_null_low": float(torch.quantile(null.residual.double(), LOW)),
    }


def components(found: Graph) -> pd.DataFrame:
    """Which small latents give way to which large ones."""
    return pd.DataFrame({
        "component": range(len(found.components)),
        "small": [list(below) for below, _ in found.components],
        "large": [list(above) for _, above in found.components],
        "small_size": [len(below) for below, _ in found.components],
        "large_size": [len(above) for _, above in found.components],
    })  # fmt: skip
