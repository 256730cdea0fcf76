"""What a case of stitching costs."""

from __future__ import annotations

from saebench_canon.metrics.shared.costs import CHUNK, COSINES, DOUBLE, random_rows, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Dictionary, Work

PATH_PAIR = 5e-8  # seconds a pair of latents active on one token, in the path
FIT_PAIR = 4e-9  # seconds x d a pair of latents, in the fit of best scales
FIT_MOST = 2**28  # pairs at most
FIT_BLOCK = 2**24  # numbers of pairs of rows that the fit of scales gathers at once


def cost(size: CaseSize) -> Cost:
    """Cosines and pursuits of the rows and their null, the path, and the fit of best scales."""
    n, (small, large) = size.tokens, size.saes
    d, both = large.d, small.width + large.width
    rows = 3 * (2 + size.settings["span_atoms"]) * small.width * large.width * d
    path = DOUBLE * both**2 * d if n else 0
    shared = PATH_PAIR * n * (small.l0 + large.l0) ** 2
    fits = 2 * FIT_PAIR * _pairs(n, large) * d
    work = Work(rows + path, 0.8 + shared + fits) + random_rows(large.width, d).times(2)
    gathered = 2 * 4 * min(FIT_BLOCK, d * _pairs(n, large))
    memory = COSINES + 4 * row_bytes(large) + max(gathered, 8 * 5 * CHUNK * d if n else 0)
    return Cost(work, memory)


def _pairs(n: int, large: Dictionary) -> float:
    """Pairs of latents that the fit of best scales looks at, on half of the documents."""
    return min(n / 2 * large.l0**2, large.width**2, FIT_MOST)
