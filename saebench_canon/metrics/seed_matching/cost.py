"""What a case of seed_matching costs."""

from __future__ import annotations

from math import comb

from saebench_canon.metrics.shared.costs import DOUBLE, largest, random_rows, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work

ASSIGN = 1.7e-9  # seconds x rows^2.5 of an assignment, of random unit rows (512 to 2048)


def cost(size: CaseSize) -> Cost:
    """Assignments of each pair and of its nulls; none where there are too many latents."""
    first, count, widest = size.saes[0], len(size.saes), largest(size)
    m, d = widest.width, first.d
    if m > size.settings["exact_up_to"]:
        return Cost(Work(fixed=0.1))
    pair = Work(DOUBLE * 5 * m**2 * d, 8 * ASSIGN * m**2.5 + 1e-7 * size.tokens * first.l0)
    nulls = random_rows(m, 2 * d).times(count)
    work = pair.times(comb(count, 2)) + nulls + Work(fixed=0.5)
    return Cost(work, 5 * 8 * m**2 + count * 4 * row_bytes(widest))
