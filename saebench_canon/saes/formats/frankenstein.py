"""The small SAE with latents of a large one in it, as an SAE in SAELens' format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Normalisation
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.saes.formats.saelens_folder import CONFIG, WEIGHTS

REFUSED = {
    "topk": "it keeps the k largest codes of each token, so latents that are put together would "
    "compete for the k places, and none would have the codes that it was judged by",
    "batchtopk": "it selects codes over a batch and has no threshold for single tokens",
}


@dataclass(frozen=True, eq=False)
class Frankenstein:
    """An SAE made of parts of two, as the tensors and the configuration of SAELens' format."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Parts:
    """Some latents of an SAE in float64: `act(y weights + bias)`, y = x or x − b as the new SAE."""

    weights: Tensor  # [d, m]
    bias: Tensor  # [m]
    rows: Tensor  # [m, d]
    threshold: Tensor | None  # [m]
    gain: Tensor | None  # [m], gated
    offset: Tensor | None  # [m], gated


@torch.no_grad()
def frankenstein(
    small: CanonicalSAE, large: CanonicalSAE, chosen: Tensor, *, normalize: Normalisation = "none"
) -> Frankenstein:
    """The small SAE with the chosen latents [m1] bool of the large one behind its own.

    On any activation its codes are the small SAE's and then the chosen ones of the large one, and
    it adds their rows to the small SAE's bias: the stitched output with the bias held at b_0, the
    convention under which a latent counts as helpful. All latents of the small SAE are there.

    ReLU latents with JumpReLU ones make a JumpReLU SAE in which they have the threshold 0; with
    gated ones, latents of either kind make a gated SAE in which a gate is the latent's own
    pre-activation less its threshold. BatchTopK with a threshold is JumpReLU.

    SAELens' format has one b_dec, which is subtracted from the input or is not. It is subtracted
    where the small SAE subtracts it. What an SAE subtracts otherwise goes into its encoder's bias,
    in float64: exact but for the digits that float32 has left when a dimension is massive.
    `normalize` is what both SAEs have done to each activation before they read it.

    Raises:
        CanonError: per-token TopK, whose selection would compete; no threshold; an encoder that is
            not known; SAEs of different widths of activations; a mask that does not fit.
    """
    coder, other = encoders(small, large)
    if chosen.shape != (large.width,) or chosen.dtype != torch.bool:
        raise CanonError(
            f"the chosen latents have shape {list(chosen.shape)} and type {chosen.dtype} where "
            f"[{large.width}] of booleans is expected"
        )
    subtracts = coder.shift is not None and torch.equal(coder.shift, small.b_dec)
    about = small.b_dec.double().cpu()
    if not subtracts:
        about = torch.zeros_like(about)
    every = torch.ones(small.width, dtype=torch.bool)
    parts = [
        _parts(small, coder, every, about),
        _parts(large, other, chosen, about),
    ]
    architecture, tensors = _joined(parts)
    tensors |= {"b_dec": small.b_dec, "W_dec": torch.cat([each.rows for each in parts])}
    dtype = torch.promote_types(small.W_dec.dtype, large.W_dec.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    return Frankenstein(
        {name: each.to("cpu", dtype).contiguous() for name, each in sorted(tensors.items())},
        {
            "architecture": architecture,
            "d_in": small.d,
            "d_sae": small.width + int(chosen.sum()),
            "dtype": str(dtype).removeprefix("torch."),
            "device": "cpu",
            "apply_b_dec_to_input": subtracts,
            "normalize_activations": normalize,
            "reshape_activations": "none",
            "metadata": {},
        },
    )


def save(made: Frankenstein, folder: Path, **metadata: Any) -> None:
    """Save it for inference into a folder that is not there yet; the same SAE, the same bytes."""
    from safetensors.torch import save_file

    if folder.exists():
        raise CanonError(f"{folder} is there already", hint="Name a new folder.")
    config = {**made.config, "metadata": {**made.config["metadata"], **metadata}}
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}-{uuid4().hex}.tmp")
    draft.mkdir()
    try:
        save_file(dict(made.tensors), draft / WEIGHTS)
        text = json.dumps(config, indent=1, sort_keys=True, allow_nan=False)
        (draft / CONFIG).write_text(text + "\n", encoding="utf-8")
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def encoders(small: CanonicalSAE, large: CanonicalSAE) -> tuple[LinearEncoder, LinearEncoder]:
    """The encoders of two SAEs that can be put together; raises CanonError for what cannot be."""
    if small.d != large.d:
        raise CanonError(f"the SAEs read activations of width {small.d} and {large.d}")
    return _coder(small, "smaller"), _coder(large, "larger")


def _coder(sae: CanonicalSAE, which: str) -> LinearEncoder:
    """The SAE's encoder, if its latents have the same codes in any company."""
    coder = sae.coder
    if not isinstance(coder, LinearEncoder):
        raise CanonError(f"the {which} SAE's encoder is not known, only what it gives")
    if coder.activation in REFUSED:
        raise CanonError(
            f"the {which} SAE is {coder.activation}: {REFUSED[coder.activation]}",
            hint="ReLU, JumpReLU, gated, and BatchTopK with a threshold can be put together.",
        )
    return coder


def _parts(sae: CanonicalSAE, coder: LinearEncoder, chosen: Tensor, about: Tensor) -> _Parts:
    """The chosen latents as they read activations less `about` [d]."""
    chosen = chosen.to(sae.W_dec.device)

    def wide(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[chosen].double().cpu()

    weights = coder.weights[:, chosen].double().cpu()
    shift = torch.zeros_like(about) if coder.shift is None else coder.shift.double().cpu()
    bias = coder.bias[chosen].double().cpu() + (about - shift) @ weights
    threshold, offset = wide(coder.threshold), wide(coder.offset)
    scale = wide(coder.scale)  # above 0, so it may stand on either side of the selection
    if scale is not None:
        weights, bias = weights * scale, bias * scale
        threshold = None if threshold is None else threshold * scale
        offset = None if offset is None else offset * scale
    rows = sae.W_dec[chosen].double().cpu()
    return _Parts(weights, bias, rows, threshold, wide(coder.gain), offset)


def _joined(parts: list[_Parts]) -> tuple[str, dict[str, Tensor]]:
    """The architecture that can hold all parts, and its encoder's tensors."""

    def side_by_side(of: Callable[[_Parts], Tensor]) -> Tensor:
        return torch.cat([of(each) for each in parts])

    encoder = {"W_enc": torch.cat([each.weights for each in parts], dim=1)}
    if any(each.gain is not None for each in parts):
        return "gated", encoder | {
            "b_gate": side_by_side(_gate),
            "b_mag": side_by_side(_magnitude),
            "r_mag": side_by_side(lambda each: _or(each.gain, 1.0, each).log()),
        }
    encoder["b_enc"] = side_by_side(lambda each: each.bias)
    if all(each.threshold is None for each in parts):
        return "standard", encoder
    return "jumprelu", encoder | {
        "threshold": side_by_side(lambda each: _or(each.threshold, 0.0, each))
    }


def _gate(each: _Parts) -> Tensor:
    """b_gate: a latent that is not gated is active above its threshold."""
    return each.bias - _or(each.threshold, 0.0, each)


def _magnitude(each: _Parts) -> Tensor:
    """b_mag, with which the magnitude is `y weights · gain + b_mag`."""
    return each.bias * _or(each.gain, 1.0, each) + _or(each.offset, 0.0, each)


def _or(tensor: Tensor | None, value: float, each: _Parts) -> Tensor:
    return torch.full_like(each.bias, value) if tensor is None else tensor
