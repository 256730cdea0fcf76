"""What a case of insertion costs."""

from __future__ import annotations

from saebench_canon.metrics.shared.costs import CHUNK, COSINES, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work

FIT_PAIR = 4e-9  # seconds x d a pair of latents, in the fit of best scales
FIT_MOST = 2**28  # pairs at most
WITNESSES = 2  # as many are common


def cost(size: CaseSize) -> Cost:
    """Pursuits of the larger's rows, cosines with the witnesses, and a fit for each of them."""
    small, large = size.saes
    rows = (size.settings["atoms"] + WITNESSES) * large.width * max(sae.width for sae in size.saes)
    pairs = min(size.tokens / 2 * large.l0**2, large.width**2, FIT_MOST)
    passes = (2 + 2 * WITNESSES) * size.tokens * (small.l0 + large.l0) * large.d
    work = Work(2 * rows * large.d + passes, 0.1 + WITNESSES * FIT_PAIR * pairs * large.d)
    return Cost(work, COSINES + 4 * row_bytes(large) + 8 * 5 * CHUNK * large.d)
