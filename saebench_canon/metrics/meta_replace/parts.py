"""The comparisons of `meta_replace`: directions, replacements, graphs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import max_cosine
from saebench_canon.kernels.meta_sae import MetaSAE
from saebench_canon.kernels.meta_training import Training
from saebench_canon.kernels.nulls import covariance_matched, isotropic
from saebench_canon.kernels.random_generators import generator
from saebench_canon.kernels.replace import (
    Quality,
    among,
    encoded,
    overlap,
    quality,
    refit,
    strongest,
    turned,
)
from saebench_canon.metrics.meta_sae.live_counts import by_size, live_count
from saebench_canon.metrics.shared.live_rows import Rows, live_rows
from saebench_canon.plugin.metric import Undefined, Value
from saebench_canon.plugin.sae import CanonicalSAE

Number = float | Value | Undefined
FLAT = "the decoder rows do not vary"


@dataclass(frozen=True, eq=False)
class SmallRows:
    """Live rows [m0, d] of smaller SAEs, with each row's latent [m0] and its SAE's width [m0].

    The first `pair_count` rows are those of the pair's smaller SAE; the peers' rows follow.
    """

    rows: Tensor
    latents: Tensor
    widths: Tensor
    pair_count: int

    def __len__(self) -> int:
        return len(self.latents)


def small_rows(
    small: tuple[CanonicalSAE, Codes | None],
    peers: Sequence[tuple[CanonicalSAE, Codes | None]],
    *,
    fewer_than: int,
) -> SmallRows:
    """The live rows of the smaller SAE, then those of peers with fewer live latents than a limit.

    Peers are in order of their number of live latents.
    """
    smaller = [peer for peer in peers if live_count(*peer) < fewer_than]
    first, *others = [(live_rows(sae, codes), sae.width) for sae, codes in (small, *smaller)]
    ordered = [first, *sorted(others, key=lambda peer: by_size(peer[0].rows))]
    return SmallRows(
        torch.cat([rows.rows for rows, _ in ordered]),
        torch.cat([rows.latents for rows, _ in ordered]),
        torch.cat([torch.full((len(rows),), width) for rows, width in ordered]),
        len(first[0]),
    )


@dataclass(frozen=True, eq=False)
class Comparison:
    """The defined scores, the reason why the others are undefined, and the tables."""

    scores: Mapping[str, Number]
    reason: str
    nearest: pd.DataFrame
    within: pd.DataFrame


def undefined(names: Iterable[str], reason: str) -> dict[str, Number]:
    """All scores undefined, for one reason."""
    return {name: Undefined(reason) for name in names}


def compare(
    model: MetaSAE, rows: Rows, small: SmallRows, refit_training: Training, seed: int, draws: int
) -> Comparison:
    """The meta-SAE of the large SAE's live rows compared with live rows of smaller SAEs.

    Meta-latents that are active on no row are left out.
    """
    codes = encoded(model, rows.rows)
    alive = codes.live
    scores: dict[str, Number] = _fit_scores("", [quality(model, rows.rows, codes)])
    cosine = torch.full((len(alive),), torch.nan, dtype=torch.float64)
    nearest = torch.full((len(alive),), -1, dtype=torch.int64)
    if len(small):
        cosine, nearest = max_cosine(model.W_dec[0], small.rows)
    reason = "no latent of the smaller SAE is live"
    if not bool(alive.any()):
        reason = "no meta-latent is active on a row"
    else:
        live, codes = among(model, alive), _codes_among(codes, alive)
        scores |= _random(live, rows.rows, codes, seed, draws)
        if len(small):
            scores |= _nearness(live, small.rows, cosine[alive], seed)
            directions = small.rows[nearest[alive]]
            scores |= _replaced(live, directions, rows.rows, codes, refit_training, seed)
            scores |= _by_chance(live, small.rows, rows.rows, codes, refit_training, seed)
            scores |= _graphs(codes, nearest[alive], rows.rows, small.rows, seed, draws)
    table = {
        "meta_latent": torch.arange(len(alive)),
        "small_latent": small.latents[nearest] if len(small) else nearest,
        "small_width": small.widths[nearest] if len(small) else nearest,
        "cosine": cosine,
        "alive": alive,
    }
    return Comparison(
        scores,
        reason,
        pd.DataFrame({name: column.numpy() for name, column in table.items()}),
        _within(model.W_dec[0][alive], alive.nonzero()[:, 0], rows, small),
    )


def _generator(seed: int, *purpose: int | str) -> torch.Generator:
    return generator(seed, "meta_replace", *purpose)


def _codes_among(codes: Codes, mask: Tensor) -> Codes:
    """The codes of the latents where the mask is true, with latents renumbered."""
    number = torch.cumsum(mask, dim=0) - 1
    masked = codes.keep(mask)
    return Codes(masked.indptr, number[masked.indices.long()], masked.values, int(mask.sum()))


def _fit_scores(kind: str, draws: list[Quality]) -> dict[str, Number]:
    """The two scores of one kind of directions; means where there are several draws."""
    explained = [draw.explained_variance for draw in draws]
    mse = [draw.mse for draw in draws]
    return {
        kind or "explained_variance": _mean(explained),
        f"mse_{kind}" if kind else "mse": _mean(mse),
    }


def _mean(values: list[float]) -> Number:
    """The mean over draws, with its standard error where there are two or more."""
    if not all(math.isfinite(value) for value in values):
        return Undefined(FLAT)
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return mean
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Value(mean, math.sqrt(variance / count), count, "draw")


def _random(live: MetaSAE, rows: Tensor, codes: Codes, seed: int, draws: int) -> dict[str, Number]:
    """The scores of random directions, with unchanged codes."""
    M, d = live.W_dec.shape[1:]
    qualities = []
    for draw in range(draws):
        directions = isotropic(M, d, _generator(seed, "random", draw))
        qualities.append(quality(turned(live, directions), rows, codes))
    return _fit_scores("replaced_random", qualities)


def _replaced(
    live: MetaSAE, directions: Tensor, rows: Tensor, codes: Codes, training: Training, seed: int
) -> dict[str, Number]:
    """The scores of other directions, with the encoder unchanged and trained further on them."""
    swapped = turned(live, directions)
    title = f"encoder of a meta-SAE {len(directions)} for other directions"
    fitted = refit(swapped, rows, training, _generator(seed, "refit"), title=title)
    return {
        **_fit_scores("replaced", [quality(swapped, rows, codes)]),
        **_fit_scores("replaced_refit", [quality(fitted, rows, encoded(fitted, rows))]),
    }


def _by_chance(
    live: MetaSAE, small: Tensor, rows: Tensor, codes: Codes, training: Training, seed: int
) -> dict[str, Number]:
    """The scores of the nearest of random rows with the small rows' mean, covariance and number."""
    chance = covariance_matched(small, _generator(seed, "rows")).to(small)
    _, nearest = max_cosine(live.W_dec[0], chance)
    scores = _replaced(live, chance[nearest], rows, codes, training, seed)
    return {f"{name}_null": scores[name] for name in ("replaced", "replaced_refit")}


def _nearness(live: MetaSAE, small: Tensor, cosine: Tensor, seed: int) -> dict[str, Number]:
    """How near the directions, and random ones of their covariance, are to small rows."""
    chance = covariance_matched(live.W_dec[0], _generator(seed, "directions")).to(small)
    return {
        "nearest_small": float(cosine.mean()),
        "nearest_null": float(max_cosine(chance, small)[0].mean()),
    }


def _graphs(
    codes: Codes, nearest: Tensor, rows: Tensor, small: Tensor, seed: int, draws: int
) -> dict[str, Number]:
    """The share of common edges, and the same with meta-latents assigned at random."""

    def assignments() -> Iterator[Tensor]:
        yield nearest
        for draw in range(draws):
            order = torch.randperm(len(nearest), generator=_generator(seed, "assignment", draw))
            yield nearest[order]

    graphs = [_edges(codes, assigned, len(small)) for assigned in assignments()]
    cosines = strongest(rows, small, max(len(edges) for edges in graphs))
    real, *random = [overlap(edges, rows, small, cosines) for edges in graphs]
    return {"graph_overlap": real, "graph_overlap_null": _mean(random)}


def _edges(codes: Codes, nearest: Tensor, count: int) -> Tensor:
    """Pairs [e, 2] of a row and the small row that is nearest to a meta-latent active on it."""
    pairs = torch.unique(codes.token_ids() * count + nearest[codes.indices.long()])
    return torch.stack([pairs // count, pairs % count], dim=1)


def _within(directions: Tensor, meta_latents: Tensor, rows: Rows, small: SmallRows) -> pd.DataFrame:
    """Each live latent's largest cosine with another latent of its dictionary; nan without one."""
    parts = []
    for name, table, latents in (
        ("meta", directions, meta_latents),
        ("small", small.rows[: small.pair_count], small.latents[: small.pair_count]),
        ("large", rows.rows, rows.latents),
    ):
        cosine = torch.full((len(table),), torch.nan, dtype=torch.float64)
        if len(table) > 1:
            cosine, _ = max_cosine(table, table, others_are_rows=True)
        order = latents.argsort()
        columns = {"which": name, "latent": latents[order], "cosine": cosine[order]}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)
