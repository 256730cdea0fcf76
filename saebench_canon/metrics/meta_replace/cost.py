"""What a case of meta_replace costs."""

from __future__ import annotations

from saebench_canon.metrics.meta_sae.cost import MetaSize
from saebench_canon.metrics.shared.costs import COSINES, DOUBLE, SPARSE, random_rows, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work

THRESHOLD_BATCHES = 50  # batches over which a meta-SAE's threshold is averaged
NEAREST = 1.5e-8  # seconds per cosine of finding the largest, without its product


def cost(size: CaseSize) -> Cost:
    """Training on the rows, the encoder's training, cosines within and between dictionaries."""
    (small, large), settings = size.saes, size.settings
    m, d = large.width, large.d
    meta = MetaSize.of(m, d, settings)
    trained = 0 if settings["meta"] is not None else meta.steps
    fits = meta.step.times(trained + 2 * (settings["refit_steps"] or meta.steps))
    read = DOUBLE * (settings["draws"] + 4) * SPARSE * 4 * m * d
    rows = (m + DOUBLE * small.width) * m * d + 3 * m * meta.width * d
    threshold = Work(2 * THRESHOLD_BATCHES * meta.batch * meta.width * d if m > meta.batch else 0)
    cosines = Work(rows + read, 0.1 + NEAREST * m * (m + small.width))
    nulls = random_rows(meta.width, d) + random_rows(small.width, d)
    memory = 3 * row_bytes(large) + max(2.0 * COSINES, meta.memory)
    return Cost(fits + threshold + cosines + nulls, memory)
