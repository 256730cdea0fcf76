"""The canonical SAE: unit-norm decoder rows and codes after selection.

`fold` makes one of raw parameters; what cannot be brought to this form exactly is refused with
the reason. `any_sae.canonical` makes one of an object in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes

Activation = Literal["relu", "jumprelu", "topk", "batchtopk", "gated"]

LARGEST = 1e18  # of a weight: products of two fit into float32
CHECKED = 2**26  # numbers looked at at once for one that is not finite
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


def fold(
    *,
    W_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    b_enc: Tensor | None = None,
    activation: Activation = "relu",
    apply_b_dec_to_input: bool = False,
    threshold: Tensor | None = None,
    k: float | None = None,
    rescale: bool = False,
    b_gate: Tensor | None = None,
    b_mag: Tensor | None = None,
    r_mag: Tensor | None = None,
    input_scale: float = 1.0,
    where: str | None = None,
) -> CanonicalSAE:
    """The canonical form of an SAE given by raw parameters.

    With n = ‖W_dec‖ by row: encoder `E = W_enc·n`, bias `c = b_enc·n`, decoder `D = W_dec/n`, so
    that `z = act(x E + c)`, `x̂ = z D + b`; x − b in the place of x when the SAE subtracts b_dec
    from its input.

    `W_enc` [d, m], `W_dec` [m, d], `b_dec` [d]; `b_enc` [m] (gated: `b_gate`, `b_mag`, `r_mag`);
    `threshold` scalar or [m] on the scale that selects. `rescale` says that selection saw
    pre-activations times n; otherwise it saw them as stored, and so it does here. `input_scale`
    is the factor that the SAE expects its input to be multiplied with and its output divided by.
    Raises CanonError naming the parameter that is missing, misshapen, not finite, or a zero row.
    """
    if W_dec.ndim != 2:
        raise CanonError(f"W_dec has shape {list(W_dec.shape)}, not [m, d]", where=where)
    m, d = W_dec.shape
    dtype = torch.float64 if W_dec.dtype == torch.float64 else torch.float32

    def read(name: str, tensor: Tensor | None, *shape: int) -> Tensor:
        if tensor is None:
            raise CanonError(f"{name} is missing", where=where)
        if tuple(tensor.shape) != shape:
            raise CanonError(
                f"{name} has shape {list(tensor.shape)} where {list(shape)} is expected",
                where=where,
            )
        largest = _largest(tensor)
        if not largest < math.inf:
            raise CanonError(f"{name} holds a value that is not finite", where=where)
        if largest > LARGEST:
            raise CanonError(f"{name} holds the value {largest:.3g}: codes overflow", where=where)
        # one copy, which is then worked on in place: the tensor itself may be mapped from a file
        return torch.empty(shape, dtype=dtype, device=tensor.device).copy_(tensor.detach())

    rows = read("W_dec", W_dec, m, d)
    weights = read("W_enc", W_enc, d, m)
    b = read("b_dec", b_dec, d)
    if input_scale != 1:
        rows /= input_scale
        weights *= input_scale
        b /= input_scale
    norms = row_norms(rows, where)
    rows /= norms[:, None]
    shift = b if apply_b_dec_to_input else None
    if activation == "gated":
        gain = read("r_mag", r_mag, m).exp()
        if not _largest(gain) <= LARGEST:
            raise CanonError("r_mag holds a value whose exponential overflows", where=where)
        gate = read("b_gate", b_gate, m)
        magnitude = read("b_mag", b_mag, m)
        weights *= norms
        coder = LinearEncoder(
            weights,
            gate * norms,
            activation,
            gain=gain,
            offset=(magnitude - gate * gain) * norms,
            shift=shift,
        )
        return CanonicalSAE(rows, b, coder)
    bias = torch.zeros_like(norms) if b_enc is None else read("b_enc", b_enc, m)
    if activation in ("topk", "batchtopk"):
        if k is None or not 0 < k <= m:
            raise CanonError(f"k is {k} where the SAE has {m} latents", where=where)
        if rescale:
            weights *= norms
            bias *= norms
        scale = None if rescale else norms
        coder = LinearEncoder(weights, bias, activation, k=k, scale=scale, shift=shift)
        return CanonicalSAE(rows, b, coder)
    level = None
    if activation == "jumprelu":
        if threshold is not None and threshold.ndim == 0:
            threshold = threshold.expand(m)
        level = read("threshold", threshold, m)
        level = (level / input_scale if rescale else level * norms).clamp(min=0)
    weights *= norms
    bias *= norms
    coder = LinearEncoder(weights, bias, activation, threshold=level, shift=shift)
    return CanonicalSAE(rows, b, coder)


def _largest(tensor: Tensor) -> float:
    """The largest size of a value, seen a part at a time; nan if one is no number."""
    if tensor.numel() == 0:
        return 0.0
    flat = tensor if tensor.ndim else tensor[None]
    parts = torch.split(flat, max(1, CHECKED // max(1, flat[0].numel())))
    return max((float(part.abs().max()) for part in parts), key=lambda size: (size != size, size))


def row_norms(rows: Tensor, where: str | None) -> Tensor:
    """The norms [m] of decoder rows [m, d]; raises CanonError for one that is 0 or not finite."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    if not torch.isfinite(norms).all():
        raise CanonError("W_dec holds a value that is not finite", where=where)
    if (norms == 0).any():
        zero = int((norms == 0).nonzero()[0])
        raise CanonError(
            f"W_dec has {int((norms == 0).sum())} rows of zeros (the first is row {zero}), "
            "and a direction of norm 0 has no canonical form",
            where=where,
        )
    return norms
