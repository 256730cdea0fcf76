"""What `meta_replace` compares: directions, replacements, graphs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import max_cosine
from saebench_canon.kernels.meta_sae import MetaSAE
from saebench_canon.kernels.meta_training import Training
from saebench_canon.kernels.nulls import covariance_matched, isotropic
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
from saebench_canon.kernels.seeds import generator
from saebench_canon.metrics.meta_sae.sizes import by_size, live_count
from saebench_canon.metrics.shared.live_rows import Rows, live_rows
from saebench_canon.plugin.metric import Undefined, Value
from saebench_canon.plugin.sae import CanonicalSAE

Number = float | Value | Undefined
FLAT = "the decoder rows do not vary"


@dataclass(frozen=True, eq=False)
class Candidates:
    """Live rows [m0, d] of smaller SAEs, their latents' numbers and those SAEs' widths, both [m0].

    The first `own` are of the pair's smaller SAE; those of others follow.
    """

    rows: Tensor
    latents: Tensor
    widths: Tensor
    own: int

    def __len__(self) -> int:
        return len(self.latents)


def candidates(
    small: tuple[CanonicalSAE, Codes | None],
    lenders: Sequence[tuple[CanonicalSAE, Codes | None]],
    *,
    fewer_than: int,
) -> Candidates:
    """The live rows of the smaller SAE, then those of lenders that have fewer, by their number."""
    smaller = [each for each in lenders if live_count(*each) < fewer_than]
    own, *others = [(live_rows(sae, codes), sae.width) for sae, codes in (small, *smaller)]
    ordered = [own, *sorted(others, key=lambda each: by_size(each[0].rows))]
    return Candidates(
        torch.cat([rows.rows for rows, _ in ordered]),
        torch.cat([rows.latents for rows, _ in ordered]),
        torch.cat([torch.full((len(rows),), width) for rows, width in ordered]),
        len(own[0]),
    )


@dataclass(frozen=True, eq=False)
class Compared:
    """The scores that there are, why the others are not, and the tables."""

    scores: Mapping[str, Number]
    reason: str
    nearest: pd.DataFrame
    within: pd.DataFrame


def undefined(names: Iterable[str], reason: str) -> dict[str, Number]:
    """Every score undefined for one reason."""
    return {name: Undefined(reason) for name in names}


def compare(
    model: MetaSAE, rows: Rows, others: Candidates, how: Training, seed: int, steps: int, draws: int
) -> Compared:
    """The meta-SAE of the large SAE's live rows beside live rows of smaller ones.

    Meta-latents that are active on no row are left out.
    """
    codes = encoded(model, rows.rows)
    alive = codes.live
    scores: dict[str, Number] = _named("", [quality(model, rows.rows, codes)])
    cosine = torch.full((len(alive),), torch.nan, dtype=torch.float64)
    nearest = torch.full((len(alive),), -1, dtype=torch.int64)
    if len(others):
        cosine, nearest = max_cosine(model.W_dec[0], others.rows)
    reason = "no latent of the smaller SAE is live"
    if not bool(alive.any()):
        reason = "no meta-latent is active on a row"
    else:
        live, codes = among(model, alive), _among(codes, alive)
        scores |= _random(live, rows.rows, codes, seed, draws)
        if len(others):
            scores |= _beside(live, others.rows, cosine[alive], seed)
            small, again = others.rows[nearest[alive]], replace(how, steps=steps)
            scores |= _replaced(live, small, rows.rows, codes, again, seed)
            scores |= _by_chance(live, others.rows, rows.rows, codes, again, seed)
            scores |= _graphs(codes, nearest[alive], rows.rows, others.rows, seed, draws)
    table = {
        "meta_latent": torch.arange(len(alive)),
        "small_latent": others.latents[nearest] if len(others) else nearest,
        "small_width": others.widths[nearest] if len(others) else nearest,
        "cosine": cosine,
        "alive": alive,
    }
    return Compared(
        scores,
        reason,
        pd.DataFrame({name: column.numpy() for name, column in table.items()}),
        _within(model.W_dec[0][alive], alive.nonzero()[:, 0], rows, others),
    )


def _draws(seed: int, *purpose: int | str) -> torch.Generator:
    return generator(seed, "meta_replace", *purpose)


def _among(codes: Codes, kept: Tensor) -> Codes:
    """The codes of the latents where the mask is true, numbered anew."""
    number = torch.cumsum(kept, dim=0) - 1
    only = codes.keep(kept)
    return Codes(only.indptr, number[only.indices.long()], only.values, int(kept.sum()))


def _named(kind: str, found: list[Quality]) -> dict[str, Number]:
    """The two scores of one kind of directions: means over draws where there are several."""
    explained = [each.explained_variance for each in found]
    mse = [each.mse for each in found]
    return {
        kind or "explained_variance": _mean(explained),
        f"mse_{kind}" if kind else "mse": _mean(mse),
    }


def _mean(values: list[float]) -> Number:
    """The mean over draws, with its standard error from two of them on."""
    if not all(math.isfinite(value) for value in values):
        return Undefined(FLAT)
    count, middle = len(values), math.fsum(values) / len(values)
    if count == 1:
        return middle
    spread = math.fsum((value - middle) ** 2 for value in values) / (count - 1)
    return Value(middle, math.sqrt(spread / count), count, "draw")


def _random(live: MetaSAE, rows: Tensor, codes: Codes, seed: int, draws: int) -> dict[str, Number]:
    """What random directions rebuild with the codes as they are."""
    M, d = live.W_dec.shape[1:]
    found = []
    for draw in range(draws):
        directions = isotropic(M, d, _draws(seed, "random", draw))
        found.append(quality(turned(live, directions), rows, codes))
    return _named("replaced_random", found)


def _replaced(
    live: MetaSAE, directions: Tensor, rows: Tensor, codes: Codes, how: Training, seed: int
) -> dict[str, Number]:
    """What other directions rebuild, with the encoder as it is and trained on for them."""
    swapped = turned(live, directions)
    what = f"encoder of a meta-SAE {len(directions)} for other directions"
    fitted = refit(swapped, rows, how, _draws(seed, "refit"), title=what)
    return {
        **_named("replaced", [quality(swapped, rows, codes)]),
        **_named("replaced_refit", [quality(fitted, rows, encoded(fitted, rows))]),
    }


def _by_chance(
    live: MetaSAE, others: Tensor, rows: Tensor, codes: Codes, how: Training, seed: int
) -> dict[str, Number]:
    """The same by the nearest of as many random rows, of the small rows' mean and covariance."""
    chance = covariance_matched(others, _draws(seed, "rows")).to(others)
    _, nearest = max_cosine(live.W_dec[0], chance)
    found = _replaced(live, chance[nearest], rows, codes, how, seed)
    return {f"{name}_null": found[name] for name in ("replaced", "replaced_refit")}


def _beside(live: MetaSAE, others: Tensor, cosine: Tensor, seed: int) -> dict[str, Number]:
    """How near the directions are to small rows, and random ones of their covariance."""
    chance = covariance_matched(live.W_dec[0], _draws(seed, "directions")).to(others)
    return {
        "nearest_small": float(cosine.mean()),
        "nearest_null": float(max_cosine(chance, others)[0].mean()),
    }


def _graphs(
    codes: Codes, nearest: Tensor, rows: Tensor, others: Tensor, seed: int, draws: int
) -> dict[str, Number]:
    """The share of edges in common, and the same with meta-latents assigned at random."""

    def assigned() -> Iterator[Tensor]:
        yield nearest
        for draw in range(draws):
            order = torch.randperm(len(nearest), generator=_draws(seed, "assignment", draw))
            yield nearest[order]

    graphs = [_edges(codes, each, len(others)) for each in assigned()]
    cosines = strongest(rows, others, max(len(edges) for edges in graphs))
    own, *random = [overlap(edges, rows, others, cosines) for edges in graphs]
    return {"graph_overlap": own, "graph_overlap_null": _mean(random)}


def _edges(codes: Codes, nearest: Tensor, count: int) -> Tensor:
    """Pairs [e, 2] of a row and the small row that an active meta-latent of it is nearest to."""
    place = codes.token_ids() * count + nearest[codes.indices.long()]
    places = torch.unique(place)
    return torch.stack([places // count, places % count], dim=1)


def _within(directions: Tensor, which: Tensor, rows: Rows, others: Candidates) -> pd.DataFrame:
    """Each live latent's best cosine with another of its own dictionary; nan where it is alone."""
    parts = []
    for name, table, latents in (
        ("meta", directions, which),
        ("small", others.rows[: others.own], others.latents[: others.own]),
        ("large", rows.rows, rows.latents),
    ):
        best = torch.full((len(table),), torch.nan, dtype=torch.float64)
        if len(table) > 1:
            best, _ = max_cosine(table, table, others_are_rows=True)
        order = latents.argsort()
        parts.append(pd.DataFrame({"which": name, "latent": latents[order], "cosine": best[order]}))
    return pd.concat(parts, ignore_index=True)
