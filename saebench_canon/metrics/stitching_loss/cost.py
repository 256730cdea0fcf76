"""What a case of stitching_loss costs."""

from __future__ import annotations

from saebench_canon.metrics.shared.costs import row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work


def cost(size: CaseSize) -> Cost:
    """The graph, and a loss at every point but the ends and at one besides."""
    small, large = size.saes
    graph = Work(small.width * large.width * large.d, 0.1)
    return Cost(graph + size.loss_with.times(size.settings["points"] - 1), row_bytes(large))
