"""What a case of fidelity costs."""

from __future__ import annotations

from saebench_canon.metrics.shared.costs import CHUNK, COSINES, DOUBLE, EIGH, SPARSE, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work


def cost(size: CaseSize) -> Cost:
    """Covariance, reconstruction and the search for duplicates."""
    n, (sae,) = size.tokens, size.saes
    passes = DOUBLE * 2 * n * sae.d**2 + SPARSE * n * sae.l0 * sae.d
    work = Work(passes + EIGH * sae.d**3 + sae.width**2 * sae.d, 0.08)
    return Cost(work, COSINES + row_bytes(sae) + 8 * 4 * CHUNK * sae.d)
