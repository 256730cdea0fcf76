"""Which latents of one SAE another one finds: by decoder rows, by codes, by encoders (ours)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import tied, unit
from saebench_canon.metrics.seed_matching.code_products import correlations_of
from saebench_canon.metrics.shared.dictionary import Dictionary
from saebench_canon.progress import track

BLOCK = 2**22  # cosines in memory at once, 32 MiB in float64

Pair = tuple[int, int]
Found = Mapping[Pair, Tensor]  # (member, other): which representatives [n] the other one finds


@dataclass(frozen=True, eq=False)
class Candidates:
    """Live rows of two dictionaries at a cosine of θ or more, and the row nearest to each row.

    Pair k is row `first[k]` of the first and row `second[k]` of the second. `nearest` [m1] are
    rows of the second, `nearest_back` [m2] rows of the first.
    """

    first: Tensor
    second: Tensor
    nearest: Tensor
    nearest_back: Tensor


def search(dictionaries: Sequence[Dictionary], threshold: float) -> dict[Pair, Candidates]:
    """The candidates of every two dictionaries, none of them empty."""
    pairs = list(combinations(range(len(dictionaries)), 2))
    return {
        (a, b): candidates(dictionaries[a].every, dictionaries[b].every, threshold)
        for a, b in track(pairs, "searching other seeds", len(pairs))
    }


def candidates(rows: Tensor, others: Tensor, threshold: float, *, block: int = BLOCK) -> Candidates:
    """Pairs of rows [m1, d] and others [m2, d], neither empty, at a cosine of θ or more."""
    table, columns = unit(rows), unit(others).T
    height = max(1, block // len(others))
    first, second, nearest = [], [], []
    largest = torch.full((len(others),), -torch.inf, dtype=torch.float64)
    nearest_back = torch.zeros(len(others), dtype=torch.int64)
    for start in range(0, len(rows), height):
        cosines = tied(table[start : start + height] @ columns)
        row, other = (cosines >= threshold).nonzero().unbind(dim=1)
        first.append(row + start)
        second.append(other)
        nearest.append(cosines.argmax(dim=1))
        best, which = cosines.max(dim=0)
        nearest_back = torch.where(best > largest, which + start, nearest_back)
        largest = torch.maximum(best, largest)
    return Candidates(torch.cat(first), torch.cat(second), torch.cat(nearest), nearest_back)


def by_rows(near: Mapping[Pair, Candidates], dictionaries: Sequence[Dictionary]) -> Found:
    """Found: some live row of the other has a cosine of θ or more."""
    return _found(near, dictionaries, lambda pair: torch.ones_like(near[pair].first).bool())


def by_codes(
    near: Mapping[Pair, Candidates],
    dictionaries: Sequence[Dictionary],
    codes: Sequence[Codes],
    threshold: float,
) -> Found:
    """Found: the codes of such a latent correlate too; codes of duplicates add up."""
    merged = [
        dictionary.merged(sparse.to("cpu"))
        for dictionary, sparse in zip(dictionaries, codes, strict=True)
    ]

    def agree(pair: Pair) -> Tensor:
        (a, b), width = pair, merged[pair[1]].width
        ours = dictionaries[a].owners[near[pair].first]
        theirs = dictionaries[b].owners[near[pair].second]
        both, which = torch.unique(ours * width + theirs, return_inverse=True)
        correlation = correlations_of(merged[a], merged[b], both // width, both % width)
        return (tied(correlation) >= threshold)[which]

    return _found(near, dictionaries, agree)


def by_encoders(
    near: Mapping[Pair, Candidates],
    dictionaries: Sequence[Dictionary],
    encoders: Sequence[Tensor],
    threshold: float,
) -> Found:
    """Found: such a latent's encoder, a row of [m, d], has a cosine of θ or more too."""
    tables = [unit(encoder.cpu()) for encoder in encoders]

    def agree(pair: Pair) -> Tensor:
        a, b = pair
        ours = tables[a][dictionaries[a].every_latent]
        theirs = tables[b][dictionaries[b].every_latent]
        height = max(1, BLOCK // ours.shape[1])
        firsts = torch.split(near[pair].first, height)
        rows = zip(firsts, torch.split(near[pair].second, height), strict=True)
        return torch.cat([tied((ours[i] * theirs[j]).sum(dim=1)) >= threshold for i, j in rows])

    return _found(near, dictionaries, agree)


def _found(
    near: Mapping[Pair, Candidates],
    dictionaries: Sequence[Dictionary],
    agree: Callable[[Pair], Tensor],
) -> Found:
    """Which representatives have a candidate that agrees, in both directions."""
    found = {}
    for a, b in near:
        agrees = agree((a, b))
        ours = near[a, b].first[agrees]
        theirs = near[a, b].second[agrees]
        found[a, b] = _representatives(dictionaries[a], ours)
        found[b, a] = _representatives(dictionaries[b], theirs)
    return found


def _representatives(dictionary: Dictionary, rows: Tensor) -> Tensor:
    """Which representatives [n] are among the live rows with these positions."""
    found = torch.zeros(len(dictionary.every), dtype=torch.bool)
    found[rows] = True
    return found[dictionary.owners == dictionary.every_latent]


def shares(found: Found, members: int) -> dict[str, dict[tuple[int, ...], float]]:
    """The shares of a member's latents that two others find, one of them, or neither.

    By member and two others, p < q: the mean over p and q of the three is k(k−1)/n(n−1) and so on,
    where k of n others find a latent, and means the same for every n. With one other alone a
    latent is found by one or by none.
    """
    counts = {"found_by_two": 2, "found_by_one": 1, "found_by_none": 0}
    if members == 2:
        del counts["found_by_two"]
    graded: dict[str, dict[tuple[int, ...], float]] = {name: {} for name in counts}
    for member in range(members):
        others = [other for other in range(members) if other != member]
        for chosen in combinations(others, min(2, len(others))):
            times = torch.stack([found[member, other] for other in chosen]).sum(dim=0)
            for name, count in counts.items():
                graded[name][member, *chosen] = float((times == count).double().mean())
    return graded
