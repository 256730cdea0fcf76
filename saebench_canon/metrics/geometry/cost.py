"""What a case of geometry costs."""

from __future__ import annotations

from saebench_canon.metrics.shared.costs import PLANTED, random_rows, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work

VIEWS = 2  # as they are, and centred


def cost(size: CaseSize) -> Cost:
    """Pursuits of an SAE's rows, and of random ones, by one another."""
    (sae,) = size.saes
    fitted = VIEWS * sae.width + min(sae.width, PLANTED)
    pursuits = Work(fitted * size.settings["atoms"] * sae.width * sae.d, 0.05)
    return Cost(pursuits + random_rows(sae.width, sae.d), 3 * row_bytes(sae))
