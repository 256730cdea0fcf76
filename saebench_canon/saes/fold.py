"""Raw parameters folded into a canonical SAE; parameters without an exact one are refused."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.plugin.sae import Activation, CanonicalSAE, LinearEncoder

LARGEST = 1e18  # of a weight: products of two fit into float32
CHECKED = 2**26  # numbers checked at once for one that is not finite


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
    `threshold` scalar or [m] on the scale that selects; a BatchTopK SAE with one needs no k.
    `rescale` says that selection saw pre-activations times n, not as stored. `input_scale` is the
    factor by which the SAE expects its input multiplied and its output divided.
    Raises CanonError naming the parameter that is missing, has a wrong shape or a value that is not
    finite, and if all decoder rows are zeros. A latent with a row of zeros adds nothing to any
    output: the row stays, and the latent is dead.
    """
    if W_dec.ndim != 2:
        raise CanonError(f"W_dec has shape {list(W_dec.shape)}, not [m, d]", where=where)
    m, d = W_dec.shape
    dtype = torch.float64 if W_dec.dtype == torch.float64 else torch.float32
    read = partial(_read, dtype=dtype, where=where)
    rows = read("W_dec", W_dec, m, d)
    weights = read("W_enc", W_enc, d, m)
    b = read("b_dec", b_dec, d)
    if input_scale != 1:
        rows /= input_scale
        weights *= input_scale
        b /= input_scale
    norms = row_norms(rows, where)
    rows /= norms.where(norms > 0, 1)[:, None]
    shift = b if apply_b_dec_to_input else None
    if activation == "gated":
        gain = read("r_mag", r_mag, m).exp()
        if not _largest(gain) <= LARGEST:
            raise CanonError("r_mag holds a value whose exponential overflows", where=where)
        gate = read("b_gate", b_gate, m)
        offset = (read("b_mag", b_mag, m) - gate * gain) * norms
        weights *= norms
        coder = LinearEncoder(
            weights, gate * norms, activation, gain=gain, offset=offset, shift=shift
        )
        return CanonicalSAE(rows, b, coder)
    bias = torch.zeros_like(norms) if b_enc is None else read("b_enc", b_enc, m)
    if activation == "batchtopk" and threshold is not None:
        activation = "jumprelu"  # what selection over a batch is at inference (eq. 8)
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


def _read(
    name: str, tensor: Tensor | None, *shape: int, dtype: torch.dtype, where: str | None
) -> Tensor:
    """A copy of a parameter in a dtype; raises CanonError if it is missing or cannot be used."""
    if tensor is None:
        raise CanonError(f"{name} is missing", where=where)
    if tuple(tensor.shape) != shape:
        raise CanonError(
            f"{name} has shape {list(tensor.shape)} where {list(shape)} is expected", where=where
        )
    largest = _largest(tensor)
    if not largest < math.inf:
        raise CanonError(f"{name} holds a value that is not finite", where=where)
    if largest > LARGEST:
        raise CanonError(
            f"{name} holds the value {largest:.3g}, with which codes overflow", where=where
        )
    # one copy, which is then worked on in place: the tensor itself may be mapped from a file
    return torch.empty(shape, dtype=dtype, device=tensor.device).copy_(tensor.detach())


def _largest(tensor: Tensor) -> float:
    """The largest absolute value, computed in parts; nan if one value is nan."""
    if tensor.numel() == 0:
        return 0.0
    flat = tensor if tensor.ndim else tensor[None]
    parts = torch.split(flat, max(1, CHECKED // max(1, flat[0].numel())))
    return max((float(part.abs().max()) for part in parts), key=lambda size: (size != size, size))


def row_norms(rows: Tensor, where: str | None) -> Tensor:
    """The norms [m] of decoder rows [m, d]; raises CanonError if one is not finite."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    if not torch.isfinite(norms).all():
        raise CanonError("W_dec holds a value that is not finite", where=where)
    if not (norms > 0).any():
        raise CanonError("W_dec has only rows of zeros", where=where)
    return norms
