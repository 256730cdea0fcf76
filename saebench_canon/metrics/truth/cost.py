"""What a case of truth costs."""

from __future__ import annotations

from saebench_canon.metrics.shared.costs import DOUBLE, SPARSE, random_rows, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work


def cost(size: CaseSize) -> Cost:
    """Pursuit by features and assignments, of the rows and their nulls, and counts of tokens.

    The number of features is not known here; it is taken for the SAE's width.
    """
    (sae,) = size.saes
    draws = 1 + size.settings["draws"]
    rows = Work(DOUBLE * size.settings["atoms"] * sae.width**2 * sae.d, 2e-9 * sae.width**2.5)
    counts = Work(2 * SPARSE * size.tokens * sae.l0**2, 0.1)
    work = rows.times(draws) + random_rows(sae.width, sae.d).times(size.settings["draws"]) + counts
    return Cost(work, 6 * 8.0 * sae.width**2 + 4 * row_bytes(sae))
