"""What a case of seed_matching costs."""

from __future__ import annotations

from math import comb, perm

from saebench_canon.metrics.shared.costs import (
    CHUNK,
    DOUBLE,
    SPARSE,
    TURNS,
    largest,
    random_rows,
    row_bytes,
)
from saebench_canon.plugin.cost import CaseSize, Cost, Work

ASSIGN = 1.7e-9  # seconds x rows^2.5 of an assignment, of random unit rows (512 to 2048)
PRODUCT = 8e-9  # seconds a pair of latents active on one token, in products of codes
SPAN = 1e-3  # seconds a group of rows whose span is compared with another's and with random rows'
UNFOUND = 0.5  # share of latents that another seed does not find, where nobody knows
BLOCK = 1024  # latents whose products with all others are in memory at once


def cost(size: CaseSize) -> Cost:
    """Each pair and its nulls, matched and searched; nothing where there are too many latents."""
    first, count, widest = size.saes[0], len(size.saes), largest(size)
    m, d, n = widest.width, first.d, size.tokens
    if m > size.settings["exact_up_to"]:
        return Cost(Work(fixed=0.1))
    products = PRODUCT * n * first.l0**2
    pair = Work(DOUBLE * 7 * m**2 * d, 8 * ASSIGN * m**2.5 + 1e-7 * n * first.l0 + products)
    nulls = random_rows(m, 2 * d).times(count)
    work = pair.times(comb(count, 2)) + nulls + Work(fixed=0.5)
    work += _spans(UNFOUND * m, d, size.settings["subspace_rows"]).times(perm(count, 2))
    if count > 2:
        work += Work(DOUBLE * SPARSE * n * first.l0 * d, products).times(count)
    memory = 5 * 8 * m**2 + count * 6 * row_bytes(widest)
    return Cost(work, memory + 3 * 8 * (BLOCK * m + (CHUNK * d if n else 0)))


def _spans(unfound: float, d: int, rows: int) -> Work:
    """Spans of the groups of one member's unfound latents, beside another's and random rows."""
    groups = unfound / rows
    products = DOUBLE * unfound * d * (TURNS * groups + 2 * unfound)
    return Work(products, SPAN * groups) + random_rows(int(unfound), d)
