"""Adam in place on a few tensors at once, without the overhead of an optimiser at each step.

It calls the operator behind `torch.optim.Adam(fused=True)` and gives the same numbers. On matrices
of a few thousand entries torch's optimiser costs several times the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-8


class Adam:
    """Running moments of the gradients of some parameters, and the steps that they lead to."""

    def __init__(self, parameters: Sequence[Tensor], betas: tuple[float, float]) -> None:
        self._parameters = list(parameters)
        self._betas = betas
        self._first = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._second = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = torch.zeros((), dtype=torch.float32, device=self._parameters[0].device)

    def step(self, gradients: Sequence[Tensor], lr: float) -> None:
        """Move the parameters against their gradients."""
        self._steps += 1
        pairs = zip(gradients, self._parameters, strict=True)
        torch._fused_adam_(
            self._parameters,
            [_laid_out(gradient, parameter) for gradient, parameter in pairs],
            self._first,
            self._second,
            [],
            [self._steps] * len(self._parameters),
            lr=lr,
            beta1=self._betas[0],
            beta2=self._betas[1],
            weight_decay=0.0,
            eps=EPS,
            amsgrad=False,
            maximize=False,
        )


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in the parameter's memory format: the operator does not look at strides."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
