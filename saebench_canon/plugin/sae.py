"""The canonical SAE: unit-norm decoder rows and codes after selection.

`saes.fold` builds it from raw parameters, `saes.any_sae` from an object in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes

Activation = Literal["relu", "jumprelu", "topk", "batchtopk", "gated"]

CHUNK = 2**24  # pre-activations in memory at once in encode_sparse, 64 MiB in float32


class Encoder(Protocol):
    """How a canonical SAE computes its codes."""

    @property
    def linear(self) -> Tensor | None:
        """The linear weights [d, m] before the activation, None if there are none."""

    def dense(self, x: Tensor) -> Tensor:
        """Codes [n, m]."""

    def sparse(self, x: Tensor) -> Codes:
        """The positive codes."""

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Encoder:
        """The same encoder on another device or in another precision."""


@dataclass(frozen=True, eq=False)
class LinearEncoder:
    """Codes `scale · act((x − shift) weights + bias)`; selection uses the argument of `act`.

    The shift is not folded into the bias: if activations and decoder bias share a massive
    dimension, `x weights − shift weights` loses the digits in which tokens differ in float32.
    """

    weights: Tensor  # [d, m]
    bias: Tensor  # [m]
    activation: Activation
    threshold: Tensor | None = None  # [m], at least 0: a code is active when strictly above it
    k: float | None = None  # per token; for "batchtopk" the mean over a batch
    gain: Tensor | None = None  # [m], gated: magnitude = gain · pre-activation + offset
    offset: Tensor | None = None  # [m]
    scale: Tensor | None = None  # [m], row norms, applied after selection
    shift: Tensor | None = None  # [d], what the SAE subtracts from its input: decoder bias, mean

    @cached_property
    def linear(self) -> Tensor:
        """The encoder's weights on the scale of the codes, [d, m]."""
        return self.weights if self.scale is None else self.weights * self.scale

    @property
    def calibrated(self) -> bool:
        """Whether single tokens have codes; selection over a batch needs a threshold first."""
        return self.activation != "batchtopk"

    def with_threshold(self, level: float) -> LinearEncoder:
        """The encoder with a threshold instead of selection over a batch; before `scale`."""
        threshold = torch.full_like(self.bias, level)
        return replace(self, activation="jumprelu", threshold=threshold, k=None)

    def dense(self, x: Tensor) -> Tensor:
        """Codes [n, m] of activations [n, d]."""
        pre = self.pre(x)
        if self.activation == "topk":
            assert self.k is not None
            values, indices = pre.topk(int(self.k), dim=1, sorted=False)
            codes = torch.zeros_like(pre).scatter_(1, indices, values.relu())
        else:
            active, values = self._active(pre)
            codes = torch.where(active, values, 0)
        return codes if self.scale is None else codes * self.scale

    def sparse(self, x: Tensor) -> Codes:
        """The positive codes of activations [n, d]; TopK does not compute dense codes."""
        pre = self.pre(x)
        if self.activation == "topk":
            assert self.k is not None
            values, columns = pre.topk(int(self.k), dim=1, sorted=False)
            columns, order = columns.sort(dim=1)
            values = values.gather(1, order)
            active = values > 0
            if self.scale is not None:  # a latent with a decoder row of zeros is dead
                active &= self.scale[columns] > 0
            indices = columns[active]
        else:
            active, values = self._active(pre)
            if self.scale is not None:
                active &= self.scale > 0
            indices = active.nonzero()[:, 1]
        positive = values[active]
        if self.scale is not None:
            positive = positive * self.scale[indices]
        indptr = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
        torch.cumsum(active.sum(dim=1), dim=0, out=indptr[1:])
        return Codes(indptr, indices.to(torch.int32), positive, pre.shape[1])

    def pre(self, x: Tensor) -> Tensor:
        """The argument of `act`, [n, m]."""
        return torch.addmm(self.bias, x if self.shift is None else x - self.shift, self.weights)

    def _active(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        """Which codes are positive, and their values, both [n, m]."""
        if not self.calibrated:
            raise CanonError(
                "the SAE selects codes over a batch and has no threshold for single tokens",
                hint="Calibrate it on data, or set `data` in the suite.",
            )
        if self.activation != "gated":
            return pre > (0 if self.threshold is None else self.threshold), pre
        assert self.gain is not None
        assert self.offset is not None
        values = torch.addcmul(self.offset, pre, self.gain)
        return (pre > 0) & (values > 0), values

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> LinearEncoder:
        """The same encoder on another device or in another precision."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device=device, dtype=dtype)

        return replace(
            self,
            weights=self.weights.to(device=device, dtype=dtype),
            bias=self.bias.to(device=device, dtype=dtype),
            threshold=move(self.threshold),
            gain=move(self.gain),
            offset=move(self.offset),
            scale=move(self.scale),
            shift=move(self.shift),
        )


@dataclass(frozen=True)
class Calibration:
    """How the threshold of an SAE was calibrated on data."""

    threshold: float  # before `scale`
    k: float
    tokens: int
    batches: int


@dataclass(frozen=True, eq=False)
class CanonicalSAE:
    """An SAE whose reconstruction is exactly `codes @ W_dec + b_dec` with unit-norm rows.

    A row of zeros belongs to a latent that is never active.
    """

    W_dec: Tensor  # [m, d]
    b_dec: Tensor  # [d]
    coder: Encoder
    calibration: Calibration | None = None

    @property
    def width(self) -> int:
        """The number of latents."""
        return int(self.W_dec.shape[0])

    @property
    def d(self) -> int:
        """The dimension of the activations."""
        return int(self.W_dec.shape[1])

    @property
    def encoder(self) -> Tensor | None:
        """Linear encoder weights [d, m] on the scale of the codes; None if it is not linear."""
        return self.coder.linear

    def encode(self, x: Tensor) -> Tensor:
        """Codes [n, m] of activations [n, d]."""
        return self.coder.dense(self._checked(x))

    def encode_sparse(self, x: Tensor) -> Codes:
        """The positive codes of activations [n, d], a bounded number of tokens at a time."""
        parts = torch.split(self._checked(x), max(1, CHUNK // self.width))
        return Codes.concatenate([self.coder.sparse(part) for part in parts])

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstructions [n, d] of dense codes [n, m]."""
        return torch.addmm(self.b_dec, codes, self.W_dec)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> CanonicalSAE:
        """The same SAE on another device or in another precision."""
        return replace(
            self,
            W_dec=self.W_dec.to(device=device, dtype=dtype),
            b_dec=self.b_dec.to(device=device, dtype=dtype),
            coder=self.coder.to(device, dtype),
        )

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.d:
            raise CanonError(f"activations must have shape [n, {self.d}], got {list(x.shape)}")
        if not torch.isfinite(x).all():
            raise CanonError("activations must be finite")
        return x.to(device=self.W_dec.device, dtype=self.W_dec.dtype)
