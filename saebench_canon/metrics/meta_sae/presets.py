"""How meta-SAEs are trained, by name; values compare within one preset only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError, nearest

if TYPE_CHECKING:
    from saebench_canon.kernels.meta_sae import Training

ROUNDING = 1e-9  # by which a quotient may be off


@dataclass(frozen=True)
class Preset:
    """A published way to train a meta-SAE on the decoder rows of an SAE.

    Its width is `width`, or else one latent for every `rows` rows; it is trained for `steps`, or
    else until each row was seen `passes` times.
    """

    k: int
    batch: int
    lr: float
    rows: float = 0.0
    width: int = 0
    steps: int = 0
    passes: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    aux_weight: float = 1 / 32
    unit_norm: bool = True
    start_norm: float = 1.0
    rescaled: bool = False
    replacement: bool = False

    def width_for(self, m: int) -> int:
        """Latents of a meta-SAE of m rows."""
        return self.width or math.ceil(m / self.rows - ROUNDING)

    def steps_for(self, m: int, batch: int) -> int:
        """Steps of training on m rows in batches of so many."""
        return self.steps or self.passes * math.ceil(m / batch)


PRESETS: Mapping[str, Preset] = {
    # SAEBench's meta_structure, whose numbers it gives (docs/decisions/saebench-parity.md)
    "quarter": Preset(
        rows=4, k=4, steps=1500, batch=1024, lr=5e-4,
        aux_weight=0.0, unit_norm=False, start_norm=0.1, rescaled=True, replacement=True,
    ),
    # Leask et al. 2025, appendix: 2304 latents for 49152 rows
    "paper": Preset(rows=49152 / 2304, k=4, passes=2000, batch=4096, lr=1e-4),
    # the configuration beside the published meta-SAE
    "artifact": Preset(
        width=2304, k=4, steps=2000, batch=16384, lr=1e-3,
        betas=(0.9, 0.99), aux_weight=1 / 16, unit_norm=False,
    ),
}  # fmt: skip


def training_of(
    m: int,
    *,
    preset: str,
    width: int | None = None,
    k: int | None = None,
    steps: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
) -> Training:
    """The training of a meta-SAE on m live decoder rows: the preset's, but for what is given.

    Raises CanonError for an unknown preset, a count below 1, and a width below 2k.
    """
    from saebench_canon.kernels.meta_sae import Training

    if preset not in PRESETS:
        raise CanonError(f"meta_sae has no preset '{preset}'", hint=nearest(preset, PRESETS))
    chosen = PRESETS[preset]
    for name, count in {"width": width, "k": k, "steps": steps, "batch": batch}.items():
        if count is not None and count < 1:
            raise CanonError(f"meta_sae: {name} = {count} is not 1 or more")
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        raise CanonError(f"meta_sae: lr = {lr} is not a number above 0")
    size = batch or chosen.batch
    how = Training(
        width=width or chosen.width_for(m),
        k=k or chosen.k,
        steps=steps or chosen.steps_for(m, size),
        batch=size,
        lr=lr or chosen.lr,
        betas=chosen.betas,
        aux_weight=chosen.aux_weight,
        unit_norm=chosen.unit_norm,
        start_norm=chosen.start_norm,
        rescaled=chosen.rescaled,
        replacement=chosen.replacement,
    )
    if how.width < 2 * how.k:
        raise CanonError(
            f"a meta-SAE of width {how.width} on {m} live decoder rows is narrower than 2k = "
            f"{2 * how.k}",
            hint="Set a larger width or a smaller k, or measure wider SAEs.",
        )
    return how


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
