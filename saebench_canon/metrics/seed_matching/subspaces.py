"""Whether latents that another seed does not find span what that seed's span (arXiv 2606.12138)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saebench_canon.kernels.composition import k_means
from saebench_canon.kernels.cosine import tied, unit
from saebench_canon.kernels.nulls import covariance_matched
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.seed_matching.found_again import Found
from saebench_canon.metrics.shared.dictionary import Dictionary
from saebench_canon.progress import track

SMALL = 1e-4  # singular values below this part of the largest are rounding of the rows

Pairs = dict[tuple[int, int], float]


def subspaces(
    found: Found, dictionaries: Sequence[Dictionary], size: int, seed: int
) -> tuple[Pairs, Pairs]:
    """By member and other: the overlap of their unfound latents' spans, and that of random rows.

    Pairs where either has fewer than twice `size` such latents are left out. The random rows have
    the mean and covariance of the other's.
    """
    overlap: Pairs = {}
    null: Pairs = {}
    for member, other in track(list(found), "comparing subspaces", len(found)):
        rows = dictionaries[member].rows[~found[member, other]]
        others = dictionaries[other].rows[~found[other, member]]
        if min(len(rows), len(others)) < 2 * size:
            continue
        draws = generator(seed, "seed_matching", "unfound", member, other)
        tables = (others, covariance_matched(others, draws))
        start = generator(seed, "seed_matching", "subspaces")  # whatever the order of the members
        both = overlaps(rows, tables, len(rows) // size, start)
        overlap[member, other], null[member, other] = both
    return overlap, null


def overlaps(
    rows: Tensor, tables: Sequence[Tensor], groups: int, generator: torch.Generator
) -> list[float]:
    """How far groups of rows [m, d] span what the nearest rows of each table [m2, d] span.

    The rows are clustered about `groups` directions. Each group's span is compared with that of as
    many rows of the table, those with the largest projections on it. Means over groups, weighted by
    rows; a row that is alone in its group does not count.
    """
    _, cluster = k_means(rows, groups, generator)
    members = [unit(rows[cluster == group]) for group in range(groups)]
    members = [part for part in members if len(part) >= 2]
    sums = [0.0] * len(tables)
    tables = [unit(table) for table in tables]
    for part in members:
        span = basis(part)
        for at, table in enumerate(tables):
            projections = tied((table @ span).square().sum(dim=1))
            nearest = projections.argsort(descending=True, stable=True)[: len(part)]
            sums[at] += len(part) * overlap(span, basis(table[nearest]))
    count = sum(len(part) for part in members)
    return [total / count for total in sums]


def basis(rows: Tensor) -> Tensor:
    """Orthonormal directions of the rows' span, as columns [d, rank] float64."""
    _, sizes, directions = torch.linalg.svd(rows.double(), full_matrices=False)
    columns: Tensor = directions[sizes > SMALL * sizes[0]].T
    return columns


def overlap(first: Tensor, second: Tensor) -> float:
    """Mean squared cosine of the principal angles between the spans of two orthonormal bases."""
    cosines = first.T @ second
    return float(cosines.square().sum() / min(cosines.shape))
