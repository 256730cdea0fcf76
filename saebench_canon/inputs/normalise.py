"""How some SAEs normalise each activation, and how their output undoes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saebench_canon.plugin.adapter import Normalisation

EPSILON = 1e-5  # SAELens' and the BatchTopK repository's


@dataclass(frozen=True, eq=False)
class Normalised:
    """Activations as an SAE reads them: `(x − mean) / divisor`, undone as `· scale + mean`."""

    x: Tensor  # [n, d]
    mean: Tensor | float  # [n, 1]
    scale: Tensor | float  # [n, 1]

    def undo(self, x_hat: Tensor) -> Tensor:
        """Reconstructions [n, d] on the scale of the activations."""
        return x_hat * self.scale + self.mean


def normalise(x: Tensor, kind: Normalisation | None) -> Normalised:
    """Each activation of x [n, d] normalised separately.

    `layer_norm` (SAELens; `input_unit_norm` in the BatchTopK repository): mean over d 0 and
    standard deviation (n − 1) 1; 1e-5 is added to the divisor, and not undone.
    `constant_norm_rescale`: norm √d; a zero vector stays zero.
    """
    if kind in (None, "none"):
        return Normalised(x, 0.0, 1.0)
    if kind == "layer_norm":
        mean = x.mean(dim=1, keepdim=True)
        std = x.std(dim=1, keepdim=True)
        return Normalised((x - mean) / (std + EPSILON), mean, std)
    scale: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True) / x.shape[1] ** 0.5
    return Normalised(x / torch.where(scale > 0, scale, 1), 0.0, scale)
