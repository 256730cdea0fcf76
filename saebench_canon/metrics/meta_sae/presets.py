"""How meta-SAEs are trained, by name; scores are comparable within one preset only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from saebench_canon.kernels.meta_training import Training

ROUNDING = 1e-9  # rounding error allowed in a quotient


@dataclass(frozen=True)
class Preset(Training):
    """A published way to train a meta-SAE on the decoder rows of an SAE.

    The width is `width`, or one latent for every `rows` rows where that is 0. The training takes
    `steps` steps, or as many as `passes` passes over the rows need where that is 0.
    """

    rows: float = 0.0
    passes: int = 0

    def width_for(self, m: int) -> int:
        """The width of a meta-SAE of m rows."""
        return self.width or math.ceil(m / self.rows - ROUNDING)

    def steps_for(self, m: int, batch: int) -> int:
        """The number of steps on m rows in batches of this size."""
        return self.steps or self.passes * math.ceil(m / batch)

    def training(self, **changes: float) -> Training:
        """The preset's training with a width, steps and other changed values."""
        preset = {field.name: getattr(self, field.name) for field in fields(Training)}
        return Training(**preset | changes)


PRESETS: Mapping[str, Preset] = {
    # SAEBench's meta_structure; it reproduces its numbers (docs/decisions/saebench-parity.md)
    "quarter": Preset(
        width=0, rows=4, k=4, steps=1500, batch=1024, lr=5e-4,
        aux_weight=0.0, unit_norm=False, start_norm=0.1, rescaled=True, replacement=True,
    ),
    # Leask et al. 2025, appendix: 2304 latents for 49152 rows
    "paper": Preset(width=0, rows=49152 / 2304, k=4, steps=0, passes=2000, batch=4096, lr=1e-4),
    # the configuration file of the published meta-SAE
    "artifact": Preset(
        width=2304, k=4, steps=2000, batch=16384, lr=1e-3,
        betas=(0.9, 0.99), aux_weight=1 / 16, unit_norm=False,
    ),
}  # fmt: skip


def with_few_dead(training: Training) -> Training:
    """The same training changed so that few meta-latents die, whatever the preset.

    Rows have unit norm, dead latents have an auxiliary loss, and no row is twice in a batch. With
    SAEBench's recipe about half of the meta-latents die on anisotropic rows, and a dead
    meta-latent is part of no sum.
    """
    return replace(
        training,
        aux_weight=1 / 32,
        unit_norm=True,
        start_norm=1.0,
        rescaled=False,
        replacement=False,
    )


def training_key(training: Training) -> dict[str, object]:
    """A training as plain data, for keys."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(training).items()
    }
