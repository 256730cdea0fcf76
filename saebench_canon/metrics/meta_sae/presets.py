"""How meta-SAEs are trained, by name; values compare within one preset only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from saebench_canon.kernels.meta_training import Training

ROUNDING = 1e-9  # by which a quotient may be off


@dataclass(frozen=True)
class Preset(Training):
    """A published way to train a meta-SAE on the decoder rows of an SAE.

    Its width is `width`, or where that is 0 one latent for every `rows` rows; it is trained for
    `steps`, or where that is 0 until each row was seen `passes` times.
    """

    rows: float = 0.0
    passes: int = 0

    def width_for(self, m: int) -> int:
        """Latents of a meta-SAE of m rows."""
        return self.width or math.ceil(m / self.rows - ROUNDING)

    def steps_for(self, m: int, batch: int) -> int:
        """Steps of training on m rows in batches of so many."""
        return self.steps or self.passes * math.ceil(m / batch)

    def training(self, **given: float) -> Training:
        """The training, with the width, steps and whatever else is given in the preset's place."""
        return Training(**{one.name: getattr(self, one.name) for one in fields(Training)} | given)


PRESETS: Mapping[str, Preset] = {
    # SAEBench's meta_structure, whose numbers it gives (docs/decisions/saebench-parity.md)
    "quarter": Preset(
        width=0, rows=4, k=4, steps=1500, batch=1024, lr=5e-4,
        aux_weight=0.0, unit_norm=False, start_norm=0.1, rescaled=True, replacement=True,
    ),
    # Leask et al. 2025, appendix: 2304 latents for 49152 rows
    "paper": Preset(width=0, rows=49152 / 2304, k=4, steps=0, passes=2000, batch=4096, lr=1e-4),
    # the configuration beside the published meta-SAE
    "artifact": Preset(
        width=2304, k=4, steps=2000, batch=16384, lr=1e-3,
        betas=(0.9, 0.99), aux_weight=1 / 16, unit_norm=False,
    ),
}  # fmt: skip


def alive(how: Training) -> Training:
    """The same training by the recipe that keeps meta-latents alive, whatever the preset's.

    Rows of unit norm, an auxiliary loss for dead latents, no row twice in a batch: by SAEBench's
    recipe about half of them die on anisotropic rows, and a dead one is part of no sum.
    """
    return replace(
        how, aux_weight=1 / 32, unit_norm=True, start_norm=1.0, rescaled=False, replacement=False
    )


def told(how: Training) -> dict[str, object]:
    """A training as plain data, for keys."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(how).items()}
