"""What a case of comparison costs."""

from __future__ import annotations

from saebench_canon.metrics.shared.costs import COSINES, PLANTED, random_rows, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work

VIEWS = 2  # as they are, and centred
NULLS = 4  # tables of random rows, and one of planted sums


def cost(size: CaseSize) -> Cost:
    """Pursuits of each SAE's rows, and of their nulls, by the other's."""
    small, large = size.saes
    work = Work(0.0)
    for rows, others in ((small, large), (large, small)):
        fitted = rows.width + NULLS * min(rows.width, PLANTED) + PLANTED
        work = work + Work(VIEWS * fitted * size.settings["atoms"] * others.width * rows.d, 0.05)
        work = work + random_rows(min(rows.width, PLANTED), rows.d).times(VIEWS)
    return Cost(work, 3 * (row_bytes(small) + row_bytes(large)) + COSINES)
