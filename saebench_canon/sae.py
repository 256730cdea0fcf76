"""The canonical SAE: unit-norm decoder rows, a linear encoder without hidden biases, one activation.

Any object with `encode`, `decode`, `W_dec`, `b_dec` is an SAE; `canonical` brings it to this form
or says why it cannot be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from saebench_canon.errors import CanonError

Activation = Literal["relu", "jumprelu", "topk", "gated"]


class AnySAE(Protocol):
    """What a notebook user may hand in: codes times rows plus bias is the reconstruction."""

    W_dec: Tensor  # [m, d]
    b_dec: Tensor  # [d]

    def encode(self, x: Tensor) -> Tensor:
        """Codes [n, m] of activations [n, d]."""

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstructions [n, d] of codes [n, m]."""
