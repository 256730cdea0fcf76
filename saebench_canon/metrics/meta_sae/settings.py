"""The settings of meta-SAEs: groups of settings that several metrics have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from saebench_canon.errors import CanonError, nearest
from saebench_canon.metrics.meta_sae.presets import PRESETS

if TYPE_CHECKING:
    from saebench_canon.kernels.meta_training import Training
    from saebench_canon.plugin.sae import CanonicalSAE


@dataclass(frozen=True)
class MetaTraining:
    """How a meta-SAE is trained: by the preset, except for the settings that are not None."""

    preset: Literal["quarter", "paper", "artifact"] = "quarter"
    width: int | None = None
    k: int | None = None
    steps: int | None = None
    batch: int | None = None
    lr: float | None = None

    def on(self, m: int) -> Training:
        """The training on m live decoder rows.

        Raises CanonError for an unknown preset, a count below 1, and a width below 2k.
        """
        if self.preset not in PRESETS:
            hint = nearest(self.preset, PRESETS)
            raise CanonError(f"meta_sae has no preset '{self.preset}'", hint=hint)
        for name in ("width", "k", "steps", "batch"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise CanonError(f"meta_sae: {name} must be at least 1, got {count}")
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr > 0):
            raise CanonError(f"meta_sae: lr must be a number above 0, got {self.lr}")
        preset = PRESETS[self.preset]
        batch = self.batch or preset.batch
        training = preset.training(
            width=self.width or preset.width_for(m),
            k=self.k or preset.k,
            steps=self.steps or preset.steps_for(m, batch),
            batch=batch,
            lr=self.lr or preset.lr,
        )
        if training.width < 2 * training.k:
            raise CanonError(
                f"a meta-SAE of width {training.width} on {m} live decoder rows is narrower than "
                f"2k = {2 * training.k}",
                hint="Set a larger width or a smaller k, or measure wider SAEs.",
            )
        return training


@dataclass(frozen=True)
class MetaChoice(MetaTraining):
    """How a meta-SAE is trained, or the published meta-SAE that is evaluated instead."""

    meta: CanonicalSAE | None = None


@dataclass(frozen=True)
class Runs:
    """How often a meta-SAE is trained, on which rows, and whether held-out rows are tested."""

    holdout: float = 0.2
    meta_seeds: int = 1
    composition: bool = True
    purge: float = 0.7

    def check(self) -> None:
        """Raises CanonError for a holdout, a count of runs or a cosine out of range."""
        if not 0 <= self.holdout < 1:
            raise CanonError(
                f"meta_sae: holdout must be a share of the rows from 0 to below 1, "
                f"got {self.holdout}"
            )
        if self.meta_seeds < 1:
            raise CanonError(f"meta_sae: meta_seeds must be at least 1, got {self.meta_seeds}")
        if not -1 <= self.purge <= 1:
            raise CanonError(f"meta_sae: purge must be a cosine from −1 to 1, got {self.purge}")

    def check_on(self, m: int) -> None:
        """Raises CanonError for a holdout that leaves too few of m rows to train on or to test."""
        out = round(self.holdout * m)
        if out == 1 or m - out < 2:
            raise CanonError(
                f"meta_sae: holdout = {self.holdout} of {m} live decoder rows leaves {m - out} to "
                f"train on and holds {out} out; each must be at least 2",
                hint="Set another holdout, or 0 to hold none out.",
            )
