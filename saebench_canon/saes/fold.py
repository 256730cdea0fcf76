"""Raw parameters folded into a canonical SAE; parameters without an exact one are refused."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.plugin.sae import Activation, CanonicalSAE, LinearEncoder
from saebench_canon.saes.activation_words import check_activation
from saebench_canon.saes.arrays import LARGEST, Array, as_tensor, copied, flag, largest, number


def fold(
    *,
    W_enc: Array,
    W_dec: Array,
    b_dec: Array,
    b_enc: Array | None = None,
    activation: Activation = "relu",
    apply_b_dec_to_input: bool = False,
    threshold: Array | None = None,
    k: float | None = None,
    rescale: bool = False,
    b_gate: Array | None = None,
    b_mag: Array | None = None,
    r_mag: Array | None = None,
    input_scale: float = 1.0,
    activation_mean: Array | None = None,
    where: str | None = None,
) -> CanonicalSAE:
    """The canonical form of an SAE given by raw parameters.

    With n = ‖W_dec‖ by row: encoder `E = W_enc·n`, bias `c = b_enc·n`, decoder `D = W_dec/n`, so
    that `z = act(x E + c)`, `x̂ = z D + b`; x − b in the place of x when the SAE subtracts b_dec
    from its input.

    `W_enc` [d, m], `W_dec` [m, d], `b_dec` [d]; `b_enc` [m] (gated: `b_gate`, `b_mag`, `r_mag`);
    `threshold` scalar or [m] on the scale that selects; a BatchTopK SAE with one needs no k.
    `rescale` says that selection saw pre-activations times n, not as stored. `input_scale` is the
    factor by which the SAE expects its input multiplied and its output divided. `activation_mean`
    [d] is subtracted from activations before all else, and added to the reconstruction.
    Arrays are torch's of any real number format, NumPy's, or lists; the SAE is on the device of
    W_dec, in float64 if W_dec is, else in float32.
    Raises CanonError naming the parameter that is missing, unused, has a wrong shape or a value
    that is not finite, and if all decoder rows are zeros. A latent with a row of zeros adds nothing
    to any output: the row stays, and the latent is dead.
    """
    given = {"b_enc": b_enc, "threshold": threshold, "b_gate": b_gate, "b_mag": b_mag,
             "r_mag": r_mag}  # fmt: skip
    used = [name for name, value in given.items() if value is not None]
    apply_b_dec_to_input = flag("apply_b_dec_to_input", apply_b_dec_to_input, where=where)
    rescale = flag("rescale", rescale, where=where)
    check_activation(activation, used, where=where)
    decoder = as_tensor("W_dec", W_dec, where=where)
    if decoder.ndim != 2:
        raise CanonError(f"W_dec has shape {list(decoder.shape)}, not [m, d]", where=where)
    m, d = decoder.shape
    read = partial(copied, like=decoder, where=where)
    rows = read("W_dec", decoder, m, d)
    weights = read("W_enc", W_enc, d, m)
    b = read("b_dec", b_dec, d)
    input_scale = number("input_scale", input_scale, where=where)
    if not 0 < input_scale < math.inf:
        raise CanonError(f"input_scale is {input_scale}, not a number above 0", where=where)
    if input_scale != 1:
        rows /= input_scale
        weights *= input_scale
        b /= input_scale
    norms = row_norms(rows, where)
    rows /= norms.where(norms > 0, 1)[:, None]
    shift = b if apply_b_dec_to_input else None
    if activation_mean is not None:
        mean = read("activation_mean", activation_mean, d)
        b = b + mean
        shift = b if apply_b_dec_to_input else mean
    if activation == "gated":
        gates = read("b_gate", b_gate, m), read("b_mag", b_mag, m), read("r_mag", r_mag, m)
        return CanonicalSAE(rows, b, _gated(weights, norms, *gates, shift=shift, where=where))
    bias = torch.zeros_like(norms) if b_enc is None else read("b_enc", b_enc, m)
    if activation == "batchtopk" and threshold is not None:
        activation = "jumprelu"  # what selection over a batch is at inference (eq. 8)
    if activation in ("topk", "batchtopk"):
        k = _latents_kept(k, m, whole=activation == "topk", where=where)
        if rescale:
            weights *= norms
            bias *= norms
        scale = None if rescale else norms
        coder = LinearEncoder(weights, bias, activation, k=k, scale=scale, shift=shift)
        return CanonicalSAE(rows, b, coder)
    level = None
    if activation == "jumprelu":
        limits = as_tensor("threshold", threshold, where=where)
        if limits.shape in ((), (1,)):
            limits = limits.reshape(()).expand(m)
        level = read("threshold", limits, m)
        level = (level / input_scale if rescale else level * norms).clamp(min=0)
    weights *= norms
    bias *= norms
    coder = LinearEncoder(weights, bias, activation, threshold=level, shift=shift)
    return CanonicalSAE(rows, b, coder)


def _gated(
    weights: Tensor, norms: Tensor, gate: Tensor, magnitude: Tensor, log_gain: Tensor, *,
    shift: Tensor | None, where: str | None,
) -> LinearEncoder:  # fmt: skip
    """The encoder of a gated SAE with these weights [d, m] and biases [m]."""
    gain = log_gain.exp()
    if not largest(gain) <= LARGEST:
        raise CanonError("r_mag holds a value whose exponential overflows", where=where)
    offset = (magnitude - gate * gain) * norms
    weights *= norms
    return LinearEncoder(weights, gate * norms, "gated", gain=gain, offset=offset, shift=shift)


def _latents_kept(k: float | None, m: int, *, whole: bool, where: str | None) -> float:
    """The k of an SAE of m latents; raises CanonError for one that it cannot have."""
    if k is None or not 0 < (count := number("k", k, where=where)) <= m:
        raise CanonError(f"k is {k} where the SAE has {m} latents", where=where)
    if whole and count != int(count):
        raise CanonError(f"k is {count}, and TopK keeps a whole number of latents", where=where)
    return count


def row_norms(rows: Tensor, where: str | None) -> Tensor:
    """The norms [m] of decoder rows [m, d]; raises CanonError if one is not finite."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    if not torch.isfinite(norms).all():
        raise CanonError("W_dec holds a value that is not finite", where=where)
    if not (norms > 0).any():
        raise CanonError("W_dec has only rows of zeros", where=where)
    return norms
