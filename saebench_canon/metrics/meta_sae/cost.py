"""What training a meta-SAE costs, and a case of meta_sae."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saebench_canon.metrics.meta_sae.presets import PRESETS
from saebench_canon.metrics.shared.costs import DOUBLE, random_rows, row_bytes
from saebench_canon.plugin.cost import CaseSize, Cost, Work

STEP = 0.45e-3  # seconds of a meta-SAE's step that do not grow with its size
SELECT = 2e-9  # seconds per code that selection compares
ADAM = 8e-9  # seconds per parameter that Adam updates
FITS = 3  # the rows, their covariance's null and isotropic rows
TESTED_FITS = 4  # the rows, two nulls and planted sums, without what is near held-out rows
CLUSTER_TURNS = 25  # of k-means
NULL_ROWS = 4  # tables of decoder rows in float64 in memory while a null is drawn


@dataclass(frozen=True)
class MetaSize:
    """A meta-SAE of m rows [d]: its width, and how long it is trained."""

    m: int
    d: int
    width: int
    steps: int
    batch: int

    @classmethod
    def of(cls, m: int, d: int, settings: Mapping[str, Any]) -> MetaSize:
        """The size that the settings of a metric give."""
        preset = PRESETS.get(settings["preset"], PRESETS["quarter"])
        batch = settings["batch"] or preset.batch
        width = settings["width"] or preset.width_for(m)
        return cls(m, d, width, settings["steps"] or preset.steps_for(m, batch), batch)

    @property
    def step(self) -> Work:
        """The work of one step of training."""
        rows = min(self.batch, self.m)
        seconds = STEP / 2 + SELECT * rows * self.width + ADAM * 2 * self.width * self.d
        return Work(rows * self.width * self.d, seconds)

    @property
    def reading(self) -> Work:
        """The work of encoding and reconstructing all rows."""
        return Work(2 * self.m * self.width * self.d)

    @property
    def memory(self) -> float:
        """Bytes of parameters, gradients and moments, and of a batch of codes."""
        rows = min(self.batch, self.m)
        return 4.0 * (4 * 2 * self.width * self.d + 2 * rows * self.width)


def cost(size: CaseSize) -> Cost:
    """Training on the rows, all and some, on their nulls, and on rows with planted sums."""
    (sae,), settings = size.saes, size.settings
    meta = MetaSize.of(sae.width, sae.d, settings)
    memory = (NULL_ROWS + TESTED_FITS) * row_bytes(sae) + TESTED_FITS * meta.memory
    if settings["meta"] is not None:
        return Cost(meta.reading, memory)
    fit = meta.step.times(meta.steps) + meta.reading
    tested = settings["composition"] and settings["holdout"] > 0
    runs = fit.times(FITS + (TESTED_FITS if tested else 0)) + random_rows(sae.width, sae.d)
    clusters = Work(DOUBLE * CLUSTER_TURNS * sae.width * meta.width * sae.d)
    return Cost(runs.times(settings["meta_seeds"] or 1) + fit + clusters, memory)
