"""What a case of comparison costs."""

from __future__ import annotations

from saebench_canon.metrics.shared.costs import COSINES, PLANTED, random_rows, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Dictionary, Work

VIEWS = 2  # as they are, and centred
NULLS = 4  # tables of random rows, and one of planted sums


def cost(size: CaseSize) -> Cost:
    """Pursuits of each SAE's rows, and of their nulls, by the other's."""
    small, large = size.saes
    work = one_way(size, small, large) + one_way(size, large, small)
    for rows in (small, large):
        work = work + random_rows(min(rows.width, PLANTED), rows.d).times(VIEWS)
    return Cost(work, 3 * (row_bytes(small) + row_bytes(large)) + COSINES)


def one_way(
    size: CaseSize,
    rows: Dictionary,
    others: Dictionary,
    *,
    nulls: int = NULLS,
    planted: int = PLANTED,
) -> Work:
    """Pursuits of one SAE's rows, of their nulls and of planted sums, in both views."""
    fitted = rows.width + nulls * min(rows.width, PLANTED) + planted
    return Work(VIEWS * fitted * size.settings["atoms"] * others.width * rows.d, 0.05)
