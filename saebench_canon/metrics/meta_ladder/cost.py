"""What a case of meta_ladder costs."""

from __future__ import annotations

from saebench_canon.metrics.meta_sae.cost import MetaSize
from saebench_canon.metrics.shared.costs import COSINES, random_rows, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost


def cost(size: CaseSize) -> Cost:
    """Training on all rows and on their null rows."""
    m, d = sum(sae.width for sae in size.saes), size.saes[0].d
    meta = MetaSize.of(m, d, size.settings)
    work = (meta.step.times(meta.steps) + meta.reading).times(2)
    for sae in size.saes:
        work += random_rows(sae.width, d)
    memory = 3 * sum(map(row_bytes, size.saes)) + max(2.0 * COSINES, meta.memory)
    return Cost(work, memory)
