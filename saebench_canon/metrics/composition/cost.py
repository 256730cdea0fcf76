"""What a case of composition costs."""

from __future__ import annotations

from saebench_canon.metrics.comparison.cost import VIEWS, one_way
from saebench_canon.metrics.shared.costs import COSINES, DOUBLE, PLANTED, random_rows, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work

PEERS = 2  # as many are common


def cost(size: CaseSize) -> Cost:
    """Pursuits both ways, nulls of the large rows, and their cosines with those of peers."""
    small, large = size.saes
    pursuits = one_way(size, large, small) + one_way(size, small, large, nulls=1, planted=0)
    nulls = random_rows(min(large.width, PLANTED), large.d).times(VIEWS)
    cosines = Work(DOUBLE * VIEWS * PEERS * large.width**2 * large.d)
    memory = 3 * (row_bytes(small) + row_bytes(large)) + PEERS * row_bytes(large) + COSINES
    return Cost(pursuits + nulls + cosines, memory)
