"""The canonical SAE: unit-norm decoder rows and codes after selection.

`saes.fold` makes one of raw parameters, `saes.any_sae` of an object in memory.
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

CHUNK = 2**24  # pre-activations held at once by encode_sparse, 64 MiB in float32


class Encoder(Protocol):
    """How a canonical SAE finds its codes."""

    @property
    def linear(self) -> Tensor | None:
        """The linear weights [d, m] before the activation, None when there are none."""

    def dense(self, x: Tensor) -> Tensor:
        """Codes [n, m]."""

    def sparse(self, x: Tensor) -> Codes:
        """The positive codes."""

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Encoder:
        """The same encoder elsewhere or in another precision."""


@dataclass(frozen=True, eq=False)
class LinearEncoder:
    """Codes `scale · act((x − shift) weights + bias)`; selection sees what stands inside `act`.

    The shift is kept apart from the bias: where activations and decoder bias share a dimension of
    a massive size, `x weights − shift weights` loses the digits that tell tokens apart in float32.
    """

    weights: Tensor  # [d, m]
    bias: Tensor  # [m]
    activation: Activation
    threshold: Tensor | None = None  # [m], at least 0: a code is kept when strictly above it
    k: float | None = None  # of a token; for "batchtopk" on the mean over a batch
    gain: Tensor | None = None  # [m], gated: magnitude = gain · pre-activation + offset
    offset: Tensor | None = None  # [m]
    scale: Tensor | None = None  # [m], row norms that the selection must not see
    shift: Tensor | None = None  # [d], the decoder bias where the SAE subtracts it from its input

    @cached_property
    def linear(self) -> Tensor:
        """The encoder's weights on the scale of the codes, [d, m]."""
        return self.weights if self.scale is None else self.weights * self.scale

    @property
    def calibrated(self) -> bool:
        """Whether a token's codes are settled: a batch's selection needs a threshold first."""
        return self.activation != "batchtopk"

    def with_threshold(self, level: float) -> LinearEncoder:
        """The encoder of a batch's selection with one threshold, on the scale that selects."""
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
        """The positive codes of activations [n, d]; top-k never makes dense codes."""
        pre = self.pre(x)
        if self.activation == "topk":
            assert self.k is not None
            values, columns = pre.topk(int(self.k), dim=1, sorted=False)
            columns, order = columns.sort(dim=1)
            values = values.gather(1, order)
            active = values > 0
            indices = columns[active]
        else:
            active, values = self._active(pre)
            indices = active.nonzero()[:, 1]
        kept = values[active]
        if self.scale is not None:
            kept = kept * self.scale[indices]
        indptr = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
        torch.cumsum(active.sum(dim=1), dim=0, out=indptr[1:])
        return Codes(indptr, indices.to(torch.int32), kept, pre.shape[1])

    def pre(self, x: Tensor) -> Tensor:
        """What stands inside `act`, [n, m]."""
        return torch.addmm(self.bias, x if self.shift is None else x - self.shift, self.weights)

    def _active(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        """Which codes are positive and the values they then have, both [n, m]."""
        if not self.calibrated:
            raise CanonError(
                "it selects codes over a batch and has no threshold for single tokens",
                hint="Give it data: the threshold is then calibrated on it.",
            )
        if self.activation != "gated":
            return pre > (0 if self.threshold is None else self.threshold), pre
        assert self.gain is not None
        assert self.offset is not None
        values = torch.addcmul(self.offset, pre, self.gain)
        return (pre > 0) & (values > 0), values

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> LinearEncoder:
        """The same encoder elsewhere or in another precision."""

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
    """How the threshold of an SAE that stores none was found on data."""

    threshold: float  # on the scale that selects
    k: float
    tokens: int
    batches: int


@dataclass(frozen=True, eq=False)
class CanonicalSAE:
    """An SAE whose reconstruction is exactly `codes @ W_dec + b_dec` with unit-norm rows."""

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
        """The width of the activations."""
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
        """The same SAE elsewhere or in another precision."""
        return replace(
            self,
            W_dec=self.W_dec.to(device=device, dtype=dtype),
            b_dec=self.b_dec.to(device=device, dtype=dtype),
            coder=self.coder.to(device, dtype),
        )

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.d:
            raise CanonError(
                f"the activations have shape {list(x.shape)} where the SAE takes [n, {self.d}]"
            )
        if not torch.isfinite(x).all():
            raise CanonError("the activations hold a value that is not finite")
        return x.to(device=self.W_dec.device, dtype=self.W_dec.dtype)
