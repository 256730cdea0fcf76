"""Any SAE in memory brought to canonical form: an object that can encode, decode, and has rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.saes.fold import row_norms

AGREES = 1e-4  # largest relative error between what an object gives and what it should
ALONE = 0.02  # the same between codes of a token alone and in a batch, which rounding tells apart
SIZES = (0.3, 1.0, 10.0)  # of the activations that an object is tried on


class AnySAE(Protocol):
    """What a notebook user may hand in: codes times rows plus bias is the reconstruction."""

    W_dec: Tensor  # [m, d]
    b_dec: Tensor  # [d]

    def encode(self, x: Tensor) -> Tensor:
        """Codes [n, m] of activations [n, d], which it gets in the dtype and place of W_dec."""

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstructions [n, d] of codes [n, m]."""


@dataclass(frozen=True, eq=False)
class WrappedEncoder:
    """Codes of somebody's object times the norms of its decoder rows."""

    sae: AnySAE
    norms: Tensor  # [m]
    linear: Tensor | None = None  # [d, m]

    def dense(self, x: Tensor) -> Tensor:
        """Codes [n, m] of activations [n, d]."""
        home = self.sae.W_dec
        with torch.no_grad():  # a copy, since an encode may work in place
            codes = self.sae.encode(x.to(device=home.device, dtype=home.dtype, copy=True))
        return codes.to_dense().to(device=x.device, dtype=self.norms.dtype) * self.norms

    def sparse(self, x: Tensor) -> Codes:
        """The positive codes of activations [n, d]."""
        return Codes.from_dense(self.dense(x))

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> WrappedEncoder:
        """The same encoder with its norms elsewhere; the object itself stays where it is."""
        linear = None if self.linear is None else self.linear.to(device=device, dtype=dtype)
        return replace(self, norms=self.norms.to(device=device, dtype=dtype), linear=linear)


def canonical(sae: object, *, name: str | None = None) -> CanonicalSAE:
    """The canonical form of any SAE in memory; raises CanonError with the reason if it has none.

    Objects of SAELens are folded; any other is wrapped after its `decode` and its codes have
    been checked on random inputs.
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
                f"it has no {attribute}",
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
    raw = _called(sae, "encode", x, where)
    codes = _checked(raw, x, rows, where)
    if _differ(codes @ rows + b, _called(sae, "decode", raw, where), slack):
        raise CanonError("its decode is not codes times W_dec plus b_dec", where=where)
    if _differ(codes, _called(sae, "encode", x, where), slack):
        raise CanonError(
            "its codes of one activation are others at every call",
            where=where,
            hint="If it is a module in training mode, call its eval().",
        )
    alone = [(slice(row, row + 1), ALONE) for row in range(len(SIZES))]
    for part, allowed in [(slice(len(x) // 2), slack), *alone]:
        if _differ(codes[part], _called(sae, "encode", x[part], where), allowed):
            raise CanonError(
                "a token's codes depend on the other tokens of its batch",
                where=where,
                hint="Give it a threshold for inference.",
            )
    linear = getattr(sae, "W_enc", None)
    if not isinstance(linear, Tensor) or not _is_linear(linear.detach(), x, codes, slack):
        linear = None
    folded = None if linear is None else linear.detach().to(norms) * norms
    return CanonicalSAE(rows / norms[:, None], b.clone(), WrappedEncoder(sae, norms, folded))


def _check_tensor(value: object, name: str, where: str) -> None:
    """Refuse what is no tensor of floating point numbers."""
    if not isinstance(value, Tensor):
        raise CanonError(
            f"{name} is of type {type(value).__name__}, not a tensor of torch",
            where=where,
            hint="torch.as_tensor makes one, and encode and decode take and give tensors.",
        )
    if not value.is_floating_point() or value.is_meta:
        kind = "on the meta device" if value.is_meta else f"of {value.dtype}"
        raise CanonError(f"{name} is {kind}, not of floating point numbers", where=where)


def _called(sae: AnySAE, method: str, argument: Tensor, where: str) -> Tensor:
    """What an object's encode or decode gives for a copy of the argument."""
    try:
        given: object = getattr(sae, method)(argument.clone())
    except Exception as error:  # somebody's own code
        told = (str(error).strip().splitlines() or [""])[0]
        raise CanonError(
            f"{method} of a tensor {list(argument.shape)} of {argument.dtype} fails "
            f"({type(error).__name__}: {told})",
            where=where,
        ) from error
    if not isinstance(given, Tensor):
        raise CanonError(f"{method} gives a {type(given).__name__}, not a tensor", where=where)
    return given


def _checked(raw: Tensor, x: Tensor, rows: Tensor, where: str) -> Tensor:
    """An object's codes as dense ones [n, m] in the rows' precision."""
    if raw.shape != (len(x), len(rows)):
        raise CanonError(
            f"encode gives shape {list(raw.shape)} where [n, {len(rows)}] is expected",
            where=where,
        )
    codes = raw.to_dense().to(rows)
    if not torch.isfinite(codes).all():
        raise CanonError("encode gives codes that are not finite", where=where)
    if (codes < 0).any():
        raise CanonError("its codes can be negative, so a latent has no one direction", where=where)
    return codes


def _probe(rows: Tensor, b: Tensor) -> Tensor:
    """Random activations [96, d] of several sizes around the bias, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(32 * len(SIZES), rows.shape[1], generator=generator)
    sizes = torch.tensor(SIZES).repeat(32)[:, None]
    probe: Tensor = b.to(rows) + (noise * sizes).to(rows)
    return probe


def _is_linear(weights: Tensor, x: Tensor, codes: Tensor, slack: float) -> bool:
    """Whether active codes are x times the weights plus a constant of the latent."""
    if weights.shape != (x.shape[1], codes.shape[1]):
        return False
    active = codes > 0
    counts = active.sum(dim=0)
    if not (counts > 1).any():
        return False
    rest = torch.where(active, codes - x.to(codes) @ weights.to(codes), 0)
    spread = torch.where(active, rest - rest.sum(dim=0) / counts.clamp(min=1), 0)
    return bool(spread.norm() <= slack * codes.norm())


def _differ(ours: Tensor, given: Tensor, slack: float) -> bool:
    if ours.shape != given.shape:
        return True
    theirs = given.to_dense().to(ours)
    # not "<=": a difference that is not a number is one
    return not bool((ours - theirs).norm() <= slack * theirs.norm().clamp(min=1e-6))
