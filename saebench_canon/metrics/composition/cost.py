"""What a case of composition costs."""

from __future__ import annotations

from saebench_canon.metrics.shared.costs import PLANTED, random_rows, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work


def cost(size: CaseSize) -> Cost:
    """Pursuit of the large rows and of their nulls by small rows."""
    small, large = size.saes
    rows = 2 * large.width + 2 * min(large.width, PLANTED)
    pursuits = Work(rows * size.settings["atoms"] * small.width * large.d, 0.05)
    return Cost(pursuits + random_rows(large.width, large.d), row_bytes(large))
