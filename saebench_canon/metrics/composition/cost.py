"""What a case of composition costs."""

from __future__ import annotations

from saebench_canon.metrics.comparison.cost import cost as compared
from saebench_canon.metrics.shared.costs import DOUBLE, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work

VIEWS = 2  # as they are, and centred
PEERS = 2  # as many are common


def cost(size: CaseSize) -> Cost:
    """What comparing the pair costs, and cosines of the large rows with those of peers."""
    _, large = size.saes
    pair = compared(size)
    cosines = Work(DOUBLE * VIEWS * PEERS * large.width**2 * large.d)
    return Cost(pair.work + cosines, pair.memory + PEERS * row_bytes(large))
