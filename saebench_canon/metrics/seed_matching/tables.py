"""The tables of what other seeds find: by member, by pair of members, by latent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd
from torch import Tensor

from saebench_canon.metrics.seed_matching.found_again import Candidates, Found, shares
from saebench_canon.metrics.seed_matching.over_members import of_members
from saebench_canon.metrics.seed_matching.scores import CENTRED, GRADES, WAYS
from saebench_canon.metrics.shared.dictionary import Dictionary

Pair = tuple[int, int]


def members_table(
    ways: Mapping[str, Found], carried: Mapping[tuple[int, ...], float], members: int
) -> pd.DataFrame:
    """One row for each member: the graded shares in each way, and the variance carried."""
    columns: dict[str, Any] = {"member": list(range(members))}
    for way in WAYS:
        graded = shares(ways[way], members) if way in ways else {}
        for name in GRADES:
            columns[f"{name}{way}"] = of_members(graded.get(name, {}), members)
    columns["shared_variance"] = of_members(carried, members)
    return pd.DataFrame(columns)


def pairs_table(ways: Mapping[str, Found], members: int) -> pd.DataFrame:
    """One row for each pair: the share of latents found, mean of both directions, in each way."""
    lines = []
    for a, b in combinations(range(members), 2):
        line: dict[str, float] = {"first": a, "second": b}
        for way in WAYS:
            found = ways.get(way)
            line[f"share{way}"] = math.nan if found is None else _share(found, a, b)
        lines.append(line)
    return pd.DataFrame(lines)


def _share(found: Found, a: int, b: int) -> float:
    return float(found[a, b].double().mean() + found[b, a].double().mean()) / 2


def found_table(
    ways: Mapping[str, Found],
    near: Mapping[Pair, Candidates],
    dictionaries: Sequence[Dictionary],
    centred: Sequence[Dictionary],
) -> pd.DataFrame:
    """One row for each representative: the members that find it, and its nearest latent in each.

    `in_centred` is missing for a latent that is nothing but the direction that rows share.
    """
    parts = []
    for member, dictionary in enumerate(dictionaries):
        others = [other for other in range(len(dictionaries)) if other != member]
        stands = dictionary.owners == dictionary.every_latent
        nearest = [_nearest(near, dictionaries, member, other)[stands].tolist() for other in others]
        table = pd.DataFrame(
            {
                "member": member,
                "latent": dictionary.latents.tolist(),
                "in": _finders(ways[""], member, others),
                "nearest": [list(latents) for latents in zip(*nearest, strict=True)],
            }
        )
        finders: dict[int, list[int]] = {}
        if CENTRED in ways:
            latents = centred[member].latents.tolist()
            finders = dict(zip(latents, _finders(ways[CENTRED], member, others), strict=True))
        table.insert(3, "in_centred", [finders.get(latent) for latent in table["latent"]])
        parts.append(table.sort_values("latent"))
    return pd.concat(parts, ignore_index=True)


def _nearest(
    near: Mapping[Pair, Candidates], dictionaries: Sequence[Dictionary], member: int, other: int
) -> Tensor:
    """The latent of another member that is nearest to each live latent of one."""
    if member < other:
        return dictionaries[other].every_latent[near[member, other].nearest]
    return dictionaries[other].every_latent[near[other, member].nearest_back]


def _finders(found: Found, member: int, others: Sequence[int]) -> list[list[int]]:
    """The members that find each representative."""
    masks = [found[member, other].tolist() for other in others]
    return [
        [other for other, finds in zip(others, line, strict=True) if finds]
        for line in zip(*masks, strict=True)
    ]
