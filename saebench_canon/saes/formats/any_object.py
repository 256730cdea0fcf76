"""The canonical form of any SAE in memory: an object with encode, decode and decoder rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from saebench_canon.errors import CanonError, message_of
from saebench_canon.kernels.codes import Codes
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.saes.fold import row_norms

AGREES = 1e-4  # largest relative error between an object's results and the expected ones
ALONE = 0.02  # the same for codes of a token alone and in a batch, which differ by rounding
SIZES = (0.3, 1.0, 10.0)  # of the activations on which an object is tested


class AnySAE(Protocol):
    """What a notebook user may hand in: codes times rows plus bias is the reconstruction."""

    W_dec: Tensor  # [m, d]
    b_dec: Tensor  # [d]

    def encode(self, x: Tensor) -> Tensor:
        """Codes [n, m] of activations [n, d], which have the dtype and device of W_dec."""

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstructions [n, d] of codes [n, m]."""


@dataclass(frozen=True, eq=False)
class WrappedEncoder:
    """Codes of an SAE object times the norms of its decoder rows."""

    sae: AnySAE
    norms: Tensor  # [m]
    linear: Tensor | None = None  # [d, m]

    def dense(self, x: Tensor) -> Tensor:
        """Codes [n, m] of activations [n, d]."""
        rows = self.sae.W_dec
        with torch.no_grad():  # a copy, since an encode may work in place
            codes = self.sae.encode(x.to(device=rows.device, dtype=rows.dtype, copy=True))
        return codes.to_dense().to(device=x.device, dtype=self.norms.dtype) * self.norms

    def sparse(self, x: Tensor) -> Codes:
        """The positive codes of activations [n, d]."""
        return Codes.from_dense(self.dense(x))

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> WrappedEncoder:
        """The same encoder with its norms moved; the object itself is not moved."""
        linear = None if self.linear is None else self.linear.to(device=device, dtype=dtype)
        return replace(self, norms=self.norms.to(device=device, dtype=dtype), linear=linear)


def canonical(sae: object, *, name: str | None = None) -> CanonicalSAE:
    """The canonical form of any SAE in memory; raises CanonError with the reason if it has none.

    Objects of SAELens are folded. Any other object is wrapped, after its `encode` and `decode`
    have been checked on random inputs.
    """
    if isinstance(sae, CanonicalSAE):
        return sae
    where = name or type(sae).__name__
    if type(sae).__module__.partition(".")[0] == "sae_lens":
        from saebench_canon.saes.formats.saelens_folder import from_object

        return from_object(sae, where=where)
    for attribute in ("encode", "decode", "W_dec", "b_dec"):
        if not hasattr(sae, attribute):
            raise CanonError(
                f"the object has no {attribute}",
                where=where,
                hint="An SAE has encode, decode, W_dec [m, d] and b_dec [d].",
            )
    return _wrap(sae, where)  # type: ignore[arg-type]


@torch.no_grad()
def _wrap(sae: AnySAE, where: str) -> CanonicalSAE:
    for name in ("W_dec", "b_dec"):
        _check_tensor(getattr(sae, name), name, where)
    rows, b = sae.W_dec.detach(), sae.b_dec.detach()
    if rows.ndim != 2 or b.shape != rows.shape[1:]:
        raise CanonError(
            f"W_dec has shape {list(rows.shape)} and b_dec {list(b.shape)}, not [m, d] and [d]",
            where=where,
        )
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    slack = max(AGREES, 2 * torch.finfo(rows.dtype).eps)
    x = _probe(rows, b)
    rows, b = rows.to(dtype), b.to(device=rows.device, dtype=dtype)
    norms = row_norms(rows, where)
    raw = _call(sae, "encode", x, where)
    codes = _dense_codes(raw, x, rows, where)
    if _differ(codes @ rows + b, _call(sae, "decode", raw, where), slack):
        raise CanonError("decode does not return codes times W_dec plus b_dec", where=where)
    if _differ(codes, _call(sae, "encode", x, where), slack):
        raise CanonError(
            "two calls of encode give different codes for the same activations",
            where=where,
            hint="If it is a module in training mode, call its eval().",
        )
    alone = [(slice(row, row + 1), ALONE) for row in range(len(SIZES))]
    for part, allowed in [(slice(len(x) // 2), slack), *alone]:
        if _differ(codes[part], _call(sae, "encode", x[part], where), allowed):
            raise CanonError(
                "a token's codes depend on the other tokens of its batch",
                where=where,
                hint="Use an encode with a fixed threshold for inference.",
            )
    linear = getattr(sae, "W_enc", None)
    if not isinstance(linear, Tensor) or not _is_linear(linear.detach(), x, codes, slack):
        linear = None
    folded = None if linear is None else linear.detach().to(norms) * norms
    return CanonicalSAE(
        rows / norms.where(norms > 0, 1)[:, None], b.clone(), WrappedEncoder(sae, norms, folded)
    )


def _check_tensor(value: object, name: str, where: str) -> None:
    """Raise CanonError unless the value is a tensor of floating point numbers."""
    if not isinstance(value, Tensor):
        raise CanonError(
            f"{name} is of type {type(value).__name__}, not a tensor of torch",
            where=where,
            hint="Convert it with torch.as_tensor; encode and decode must take and return tensors.",
        )
    if not value.is_floating_point() or value.is_meta:
        fault = "on the meta device" if value.is_meta else f"of {value.dtype}"
        raise CanonError(f"{name} is {fault}, not of floating point numbers", where=where)


def _call(sae: AnySAE, method: str, argument: Tensor, where: str) -> Tensor:
    """What an object's encode or decode returns for a copy of the argument."""
    try:
        returned: object = getattr(sae, method)(argument.clone())
    except Exception as error:  # the object's own code
        raise CanonError(
            f"{method} of a tensor {list(argument.shape)} of {argument.dtype} fails "
            f"({type(error).__name__}: {message_of(error)})",
            where=where,
        ) from error
    if not isinstance(returned, Tensor):
        raise CanonError(f"{method} returns a {type(returned).__name__}, not a tensor", where=where)
    if returned.is_complex():
        raise CanonError(f"{method} returns complex numbers", where=where)
    return returned


def _dense_codes(raw: Tensor, x: Tensor, rows: Tensor, where: str) -> Tensor:
    """An object's codes as dense ones [n, m] in the rows' precision."""
    if raw.shape != (len(x), len(rows)):
        raise CanonError(
            f"encode returns shape {list(raw.shape)} where [n, {len(rows)}] is expected",
            where=where,
        )
    codes = raw.to_dense().to(rows)
    if not torch.isfinite(codes).all():
        raise CanonError("encode returns codes that are not finite", where=where)
    if (codes < 0).any():
        raise CanonError(
            "codes can be negative, so a latent does not have a single direction", where=where
        )
    return codes


def _probe(rows: Tensor, b: Tensor) -> Tensor:
    """Random activations [96, d] of several sizes around the bias, equal at every call."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(32 * len(SIZES), rows.shape[1], generator=generator)
    sizes = torch.tensor(SIZES).repeat(32)[:, None]
    probe: Tensor = b.to(rows) + (noise * sizes).to(rows)
    return probe


def _is_linear(weights: Tensor, x: Tensor, codes: Tensor, slack: float) -> bool:
    """Whether active codes are x times the weights plus a constant for each latent."""
    if weights.shape != (x.shape[1], codes.shape[1]):
        return False
    active = codes > 0
    counts = active.sum(dim=0)
    if not (counts > 1).any():
        return False
    rest = torch.where(active, codes - x.to(codes) @ weights.to(codes), 0)
    spread = torch.where(active, rest - rest.sum(dim=0) / counts.clamp(min=1), 0)
    return bool(spread.norm() <= slack * codes.norm())


def _differ(ours: Tensor, returned: Tensor, slack: float) -> bool:
    if ours.shape != returned.shape:
        return True
    theirs = returned.to_dense().to(ours)
    # not ">": a difference of nan counts as one
    return not bool((ours - theirs).norm() <= slack * theirs.norm().clamp(min=1e-6))
