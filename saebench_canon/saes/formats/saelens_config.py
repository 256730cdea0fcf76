"""What SAELens' cfg.json says, from version 3.x on, and which SAEs are refused for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from saebench_canon.errors import CanonError, known_names
from saebench_canon.plugin.adapter import Normalisation
from saebench_canon.saes.parameters import Activation

ARCHITECTURES: dict[str, Activation] = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "batchtopk": "batchtopk",
    "matryoshka_batchtopk": "batchtopk",
}
_TRANSCODER = "it is a transcoder, which reconstructs other activations than it reads"
_SELECTING = ("topk", "batchtopk", "matryoshka_batchtopk")  # have k, and may rescale
REFUSED = {
    "abstopk": "its codes are signed, so a latent does not have a single direction",
    "matching_pursuit": "its codes come from a search, not from an encoder and one activation",
    "temporal": "a token's codes depend on the tokens before it",
    "transcoder": _TRANSCODER,
    "skip_transcoder": _TRANSCODER,
    "jumprelu_transcoder": _TRANSCODER,
    "jumprelu_skip_transcoder": _TRANSCODER,
}
_PER_TOKEN = ("none", "layer_norm", "constant_norm_rescale")
_SCALED = "expected_average_only_in"
_NOT_FOLDED = {
    _SCALED: "it was trained on scaled activations and the factor is not folded into its weights",
    "covariance_whitening": "it was trained on whitened activations and the whitening is not "
    "folded into its weights",
}


@dataclass(frozen=True)
class SaeLensConfig:
    """What a cfg.json says about codes and reconstructions, and the rest as metadata."""

    where: str
    architecture: str
    d: int
    width: int
    k: float | None
    apply_b_dec_to_input: bool
    rescale: bool  # selection saw pre-activations times the decoder's row norms
    normalize: Normalisation
    input_scale: float
    finetuned: bool  # decoder rows may carry an extra factor, `scaling_factor`
    metadata: Mapping[str, Any] = field(repr=False)

    @property
    def trained_architecture(self) -> str:
        """The architecture in which the SAE was trained."""
        return self.text("training_architecture") or self.architecture

    def text(self, *names: str) -> str | None:
        """The first of these entries of the metadata that is not empty, if it is text."""
        value = next((self.metadata[name] for name in names if self.metadata.get(name)), None)
        return value if isinstance(value, str) else None

    def flag(self, name: str) -> bool | None:
        """An entry of the metadata, if it is true or false."""
        value = self.metadata.get(name)
        return value if isinstance(value, bool) else None

    @property
    def centred(self) -> bool | None:
        """Whether the model's writing weights were centred, if the metadata says so."""
        kwargs = self.metadata.get("model_from_pretrained_kwargs")
        centred = kwargs.get("center_writing_weights") if isinstance(kwargs, Mapping) else None
        return centred if isinstance(centred, bool) else None


def parse_config(
    raw: Mapping[str, Any], *, where: str, input_scale: float | None = None
) -> SaeLensConfig:
    """The cfg.json of any SAELens from 3.x on; raises CanonError if it has no canonical form.

    `input_scale` is the factor of `expected_average_only_in`, if it is known.
    """
    nested = raw.get("metadata")
    metadata = {**raw, **nested} if isinstance(nested, Mapping) else dict(raw)
    metadata.pop("metadata", None)
    old = "architecture" not in raw or not isinstance(nested, Mapping)
    architecture, k = _architecture(raw, old=old, where=where)
    d, width = (_positive(raw, key, where) for key in ("d_in", "d_sae"))
    if raw.get("d_out", d) != d:
        raise CanonError(f"d_in is {d} and d_out is {raw['d_out']}: {_TRANSCODER}", where=where)
    if raw.get("use_error_term"):
        raise CanonError(
            "use_error_term is on, so the output equals the input whatever the codes are",
            where=where,
        )
    if raw.get("reshape_activations") not in (None, "none", "hook_z"):  # hook_z: heads side by side
        raise CanonError(
            f"reshape_activations is {raw['reshape_activations']!r}, which is not known",
            where=where,
        )
    normalize, scale = _normalisation(raw.get("normalize_activations"), input_scale, where)
    trained = metadata.get("training_architecture_details")
    if k is None and isinstance(trained, Mapping):
        k = trained.get("k")
    return SaeLensConfig(
        where=where,
        architecture=architecture,
        d=d,
        width=width,
        k=k if isinstance(k, int | float) and not isinstance(k, bool) else None,
        apply_b_dec_to_input=_flag(raw, "apply_b_dec_to_input", where, default=True),
        rescale=_flag(raw, "rescale_acts_by_decoder_norm", where) and architecture in _SELECTING,
        normalize=normalize,
        input_scale=scale,
        finetuned=_flag(raw, "finetuning_scaling_factor", where),
        metadata=metadata,
    )


def _architecture(raw: Mapping[str, Any], *, old: bool, where: str) -> tuple[str, Any]:
    """The architecture and k; before 6.0 the activation function decides about TopK."""
    architecture, k = raw.get("architecture") or "standard", raw.get("k")
    if old:
        activation = raw.get("activation_fn_str") or raw.get("activation_fn") or "relu"
        if activation == "topk":
            kwargs = raw.get("activation_fn_kwargs")
            architecture, k = "topk", (kwargs if isinstance(kwargs, Mapping) else {}).get("k", k)
        elif activation != "relu":
            raise CanonError(
                f"the activation function is '{activation}', and only relu and topk are known",
                where=where,
            )
    if not isinstance(architecture, str):
        raise CanonError(f"the architecture is {architecture!r}, not a name", where=where)
    if architecture in REFUSED:
        raise CanonError(
            f"the architecture is '{architecture}': {REFUSED[architecture]}", where=where
        )
    if architecture not in ARCHITECTURES:
        raise CanonError(
            f"the architecture '{architecture}' is not known",
            where=where,
            hint=known_names(sorted(ARCHITECTURES)),
        )
    if architecture in _SELECTING and not _is_positive(k):
        raise CanonError(f"k is {k!r}, not a number above 0", where=where)
    return architecture, k


def _normalisation(value: Any, factor: float | None, where: str) -> tuple[Normalisation, float]:
    """How each activation is normalised by itself, and the factor that all share."""
    if value is True:
        value = _SCALED
    value = value or "none"
    if value in _PER_TOKEN:
        return cast(Normalisation, value), 1.0
    if value == _SCALED and factor is not None:
        return "none", factor
    reason = _NOT_FOLDED.get(value, "this is not known") if isinstance(value, str) else "no name"
    raise CanonError(f"normalize_activations is '{value}': {reason}", where=where)


def _is_positive(k: Any) -> bool:
    return isinstance(k, int | float) and not isinstance(k, bool) and 0 < k < math.inf


def _flag(raw: Mapping[str, Any], key: str, where: str, *, default: bool = False) -> bool:
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CanonError(f"{key} is {value!r}, not true or false", where=where)
    return value


def _positive(raw: Mapping[str, Any], key: str, where: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CanonError(f"{key} is {value!r}, not a positive whole number", where=where)
    return value
