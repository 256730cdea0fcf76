"""An SAE in SAELens' format from latents of others: of two, or some of one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from saebench_canon.errors import CanonError, writing
from saebench_canon.plugin.adapter import Description, Normalisation
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.saes.formats.saelens_folder import CONFIG, WEIGHTS

REFUSED = {
    "topk": "it keeps the k largest codes of each token, so the combined latents would compete and "
    "would not have the codes on which they were chosen",
    "batchtopk": "it selects codes over a batch and has no threshold for single tokens",
}


@dataclass(frozen=True, eq=False)
class Frankenstein:
    """An SAE combined from two, as tensors and configuration in SAELens' format."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Latents:
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
    """The small SAE with the chosen latents [m1] bool of the large one appended.

    On any activation its codes are the small SAE's and then the chosen ones of the large one, and
    it adds their rows to the small SAE's bias: the stitched output with the bias fixed at b_0, the
    convention under which a latent counts as helpful. It has all latents of the small SAE.

    ReLU with JumpReLU latents make a JumpReLU SAE, in which the former have the threshold 0. With
    gated latents, either kind makes a gated SAE, in which its gate is its pre-activation minus
    its threshold. BatchTopK with a threshold is JumpReLU.

    SAELens' format has one b_dec, which is subtracted from the input or is not. It is subtracted
    where the small SAE subtracts it. Any other shift of an SAE is moved into its encoder's bias, in
    float64: exact but for the digits that float32 loses where a dimension is massive.
    `normalize` is how both SAEs normalise each activation before they read it.

    Raises:
        CanonError: per-token TopK, whose selection would compete; no threshold; an encoder that is
            not known; SAEs of different widths of activations; a mask that does not fit.
    """
    small_coder, large_coder = encoders(small, large)
    if chosen.shape != (large.width,) or chosen.dtype != torch.bool:
        raise CanonError(
            f"the chosen latents have shape {list(chosen.shape)} and type {chosen.dtype} where "
            f"[{large.width}] of booleans is expected"
        )
    shift = small_coder.shift
    subtracts = shift is not None and torch.equal(shift, small.b_dec)
    center = small.b_dec.double().cpu()
    if not subtracts:
        center = torch.zeros_like(center)
    all_latents = torch.ones(small.width, dtype=torch.bool)
    parts = [
        _latents(small, small_coder, all_latents, center),
        _latents(large, large_coder, chosen, center),
    ]
    dtype = torch.promote_types(small.W_dec.dtype, large.W_dec.dtype)
    return _in_saelens_format(parts, small.b_dec, dtype, subtracts=subtracts, normalize=normalize)


@torch.no_grad()
def some_latents(
    sae: CanonicalSAE, chosen: Tensor, *, k: int | None = None, normalize: Normalisation = "none"
) -> Frankenstein:
    """The chosen latents [m] bool of an SAE, as an SAE of their own with the same b_dec.

    Their codes are those that they have in the SAE, unless it keeps the k largest codes of each
    token: then the `k` largest of the chosen latents are kept, and they have the codes of the SAE
    where it keeps them too. Raises CanonError as `frankenstein`, and for TopK without `k`.
    """
    coder = sae.coder
    if not isinstance(coder, LinearEncoder):
        raise CanonError("the SAE's encoder is not known, only its codes are")
    if coder.activation == "topk" and k is not None:
        coder = replace(coder, activation="relu", k=None)
    else:
        coder = _coder(sae, "exported")
        k = None
    subtracts = coder.shift is not None and torch.equal(coder.shift, sae.b_dec)
    center = sae.b_dec.double().cpu() if subtracts else torch.zeros(sae.d, dtype=torch.float64)
    parts = [_latents(sae, coder, chosen, center)]
    found = _in_saelens_format(
        parts, sae.b_dec, sae.W_dec.dtype, subtracts=subtracts, normalize=normalize
    )
    if k is None:
        return found
    topk = {"architecture": "topk", "k": k, "rescale_acts_by_decoder_norm": False}
    return replace(found, config={**found.config, **topk})


def _in_saelens_format(
    parts: list[_Latents],
    b_dec: Tensor,
    dtype: torch.dtype,
    *,
    subtracts: bool,
    normalize: Normalisation,
) -> Frankenstein:
    """Latents in a row, and one bias, under SAELens' names."""
    architecture, tensors = _joined(parts)
    tensors |= {"b_dec": b_dec, "W_dec": torch.cat([latents.rows for latents in parts])}
    dtype = torch.promote_types(dtype, torch.float32)
    width, d = tensors["W_dec"].shape
    return Frankenstein(
        {name: value.to("cpu", dtype).contiguous() for name, value in sorted(tensors.items())},
        {
            "architecture": architecture,
            "d_in": d,
            "d_sae": width,
            "dtype": str(dtype).removeprefix("torch."),
            "device": "cpu",
            "apply_b_dec_to_input": subtracts,
            "normalize_activations": normalize,
            "reshape_activations": "none",
            "metadata": {},
        },
    )


def save(sae: Frankenstein, folder: Path, **metadata: Any) -> None:
    """Save an SAE for inference into a new folder; equal SAEs give equal bytes."""
    if folder.exists():
        raise CanonError(f"{folder} already exists", hint="Name a new folder.")
    draft = folder.with_name(f".{folder.name}-{uuid4().hex}.tmp")
    with writing(folder):
        draft.mkdir(parents=True)
        try:
            write(sae, draft, **metadata)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def write(sae: Frankenstein, folder: Path, **metadata: Any) -> None:
    """Write an SAE for inference into a folder that is there."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    config = {**sae.config, "metadata": {**sae.config["metadata"], **metadata}}
    text = json.dumps(config, indent=1, sort_keys=True, allow_nan=False)
    try:
        save_file(dict(sae.tensors), folder / WEIGHTS)
    except SafetensorError as error:  # what safetensors makes of a full disk
        raise OSError(str(error)) from error
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def origin(description: Description, hook: str | None = None) -> dict[str, Any]:
    """What an SAE says about its model, under SAELens' names."""
    metadata: dict[str, Any] = {
        "hook_name": hook or description.hook,
        "model_name": description.model,
        "prepend_bos": description.prepend_bos,
    }
    if description.center_writing_weights is not None:
        centred = {"center_writing_weights": description.center_writing_weights}
        metadata["model_from_pretrained_kwargs"] = centred
    return {name: value for name, value in metadata.items() if value is not None}


def encoders(small: CanonicalSAE, large: CanonicalSAE) -> tuple[LinearEncoder, LinearEncoder]:
    """The encoders of two SAEs; raises CanonError if the SAEs cannot be combined."""
    if small.d != large.d:
        raise CanonError(f"the SAEs read activations of width {small.d} and {large.d}")
    return _coder(small, "smaller"), _coder(large, "larger")


def _coder(sae: CanonicalSAE, which: str) -> LinearEncoder:
    """The SAE's encoder, if the codes of its latents do not depend on other latents."""
    coder = sae.coder
    if not isinstance(coder, LinearEncoder):
        raise CanonError(f"the {which} SAE's encoder is not known, only its codes are")
    if coder.activation in REFUSED:
        raise CanonError(
            f"the {which} SAE is {coder.activation}: {REFUSED[coder.activation]}",
            hint="ReLU, JumpReLU, gated, and BatchTopK with a threshold can be combined.",
        )
    return coder


def _latents(sae: CanonicalSAE, coder: LinearEncoder, chosen: Tensor, center: Tensor) -> _Latents:
    """The chosen latents, reading activations minus `center` [d]."""
    chosen = chosen.to(sae.W_dec.device)

    def wide(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[chosen].double().cpu()

    weights = coder.weights[:, chosen].double().cpu()
    shift = torch.zeros_like(center) if coder.shift is None else coder.shift.double().cpu()
    bias = coder.bias[chosen].double().cpu() + (center - shift) @ weights
    threshold, offset = wide(coder.threshold), wide(coder.offset)
    scale = wide(coder.scale)  # above 0, so it may be applied before or after the selection
    if scale is not None:
        weights, bias = weights * scale, bias * scale
        threshold = None if threshold is None else threshold * scale
        offset = None if offset is None else offset * scale
    rows = sae.W_dec[chosen].double().cpu()
    return _Latents(weights, bias, rows, threshold, wide(coder.gain), offset)


def _joined(parts: list[_Latents]) -> tuple[str, dict[str, Tensor]]:
    """The architecture that can hold all parts, and its encoder's tensors."""

    def concatenated(parameter: Callable[[_Latents], Tensor]) -> Tensor:
        return torch.cat([parameter(latents) for latents in parts])

    encoder = {"W_enc": torch.cat([latents.weights for latents in parts], dim=1)}
    if any(latents.gain is not None for latents in parts):
        return "gated", encoder | {
            "b_gate": concatenated(_gate),
            "b_mag": concatenated(_magnitude),
            "r_mag": concatenated(lambda latents: _or(latents.gain, 1.0, latents).log()),
        }
    encoder["b_enc"] = concatenated(lambda latents: latents.bias)
    if all(latents.threshold is None for latents in parts):
        return "standard", encoder
    return "jumprelu", encoder | {
        "threshold": concatenated(lambda latents: _or(latents.threshold, 0.0, latents))
    }


def _gate(latents: _Latents) -> Tensor:
    """b_gate: a latent that is not gated is active above its threshold."""
    return latents.bias - _or(latents.threshold, 0.0, latents)


def _magnitude(latents: _Latents) -> Tensor:
    """b_mag, with which the magnitude is `y weights · gain + b_mag`."""
    gain, offset = _or(latents.gain, 1.0, latents), _or(latents.offset, 0.0, latents)
    return latents.bias * gain + offset


def _or(tensor: Tensor | None, default: float, latents: _Latents) -> Tensor:
    return torch.full_like(latents.bias, default) if tensor is None else tensor
