"""SAELens checkpoints: what their cfg.json means, which are refused, and how the weights fold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.adapter import Description
from saebench_canon.errors import CanonError
from saebench_canon.weights.safetensors_file import Entry, read_header

if TYPE_CHECKING:
    from torch import Tensor

    from saebench_canon.sae import CanonicalSAE

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
SCALER = "activation_scaler.json"

_KEYS = {
    "standard": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "topk": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "jumprelu": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
    "gated": ("W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"),
    "batchtopk": ("W_enc", "b_enc", "W_dec", "b_dec", "topk_threshold"),
    "matryoshka_batchtopk": ("W_enc", "b_enc", "W_dec", "b_dec", "topk_threshold"),
}
_TRANSCODER = "a transcoder reconstructs other activations than those it reads"
_REFUSED = {
    "abstopk": "its codes are signed, so a latent has no one direction",
    "matching_pursuit": "its codes come from a search, not from an encoder and one activation",
    "temporal": "a token's codes depend on the tokens before it",
    "transcoder": _TRANSCODER,
    "skip_transcoder": _TRANSCODER,
    "jumprelu_transcoder": _TRANSCODER,
    "jumprelu_skip_transcoder": _TRANSCODER,
}
_STATEFUL = "is scaled back with statistics of the last batch that it encoded"
_NORMALISATIONS = {
    "constant_norm_rescale": f"its output {_STATEFUL}",
    "layer_norm": f"its output {_STATEFUL}",
    "covariance_whitening": "it was trained on whitened activations and the whitening is not "
    "folded into its weights",
    "expected_average_only_in": "it was trained on scaled activations and the factor is not "
    "folded into its weights",
}
_FOLDED_AWAY = frozenset({"expected_average_only_in"})  # when the factor is known


@dataclass(frozen=True)
class Config:
    """The parts of a cfg.json that shape codes and reconstructions, and the rest as metadata."""

    architecture: str
    d: int
    width: int
    k: float | None
    apply_b_dec_to_input: bool
    rescale: bool  # selection saw pre-activations times the decoder's row norms
    input_scale: float
    finetuned: bool  # decoder rows carry an extra factor, `scaling_factor`
    dtype: str
    metadata: Mapping[str, Any] = field(repr=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """The tensors that the architecture needs."""
        return _KEYS[self.architecture]


def parse_config(raw: Mapping[str, Any], *, where: str, input_scale: float | None = None) -> Config:
    """The cfg.json of any SAELens from 3.x on; raises CanonError for what has no canonical form."""
    nested = raw.get("metadata")
    metadata = {**raw, **nested} if isinstance(nested, Mapping) else dict(raw)
    metadata.pop("metadata", None)
    architecture = raw.get("architecture") or "standard"
    k = raw.get("k")
    if "architecture" not in raw or not isinstance(nested, Mapping):
        activation = raw.get("activation_fn_str") or raw.get("activation_fn") or "relu"
        if activation == "topk":
            architecture = "topk"
            k = (raw.get("activation_fn_kwargs") or {}).get("k", k)
        elif activation != "relu":
            raise CanonError(f"its activation function '{activation}' is not known", where=where)
    if architecture in _REFUSED:
        raise CanonError(
            f"the architecture is '{architecture}': {_REFUSED[architecture]}", where=where
        )
    if architecture not in _KEYS:
        raise CanonError(
            f"the architecture '{architecture}' is not known",
            where=where,
            hint=f"There is {', '.join(sorted(_KEYS))}.",
        )
    d, width = (_positive(raw, key, where) for key in ("d_in", "d_sae"))
    if raw.get("d_out", d) != d:
        raise CanonError(f"d_in is {d} and d_out is {raw['d_out']}: {_TRANSCODER}", where=where)
    if raw.get("use_error_term"):
        raise CanonError(
            "use_error_term is on, so its output is its input whatever its codes", where=where
        )
    hook = metadata.get("hook_name") or metadata.get("hook_point") or ""
    default = "hook_z" if "hook_z" in hook and not isinstance(nested, Mapping) else "none"
    if (raw.get("reshape_activations") or default) != "none":
        raise CanonError(
            "it reshapes attention heads (hook_z) inside",
            where=where,
            hint="Save it with reshape_activations 'none' and give it flattened activations.",
        )
    normalisation = raw.get("normalize_activations") or "none"
    if normalisation is True:
        normalisation = "expected_average_only_in"
    if normalisation == "none":
        input_scale = None
    elif normalisation not in _FOLDED_AWAY or input_scale is None:
        reason = _NORMALISATIONS.get(normalisation, "this is not known")
        raise CanonError(
            f"normalize_activations is '{normalisation}': {reason}",
            where=where,
        )
    if architecture == "topk":
        if isinstance(k, float) and k.is_integer():
            k = int(k)
        if not isinstance(k, int) or isinstance(k, bool) or not 0 < k <= width:
            raise CanonError(f"k is {k} where the SAE has {width} latents", where=where)
    trained = metadata.get("training_architecture_details")
    if k is None and isinstance(trained, Mapping):
        k = trained.get("k")
    return Config(
        architecture=architecture,
        d=d,
        width=width,
        k=k,
        apply_b_dec_to_input=bool(raw.get("apply_b_dec_to_input", True)),
        rescale=bool(raw.get("rescale_acts_by_decoder_norm", False)),
        input_scale=1.0 if input_scale is None else input_scale,
        finetuned=bool(raw.get("finetuning_scaling_factor", False)),
        dtype=str(raw.get("dtype", "float32")).removeprefix("torch."),
        metadata=metadata,
    )


def describe(config: Config) -> Description:
    """What the configuration says of the SAE."""
    told = config.metadata
    kwargs = told.get("model_from_pretrained_kwargs")
    centred = kwargs.get("center_writing_weights") if isinstance(kwargs, Mapping) else None
    return Description(
        d=config.d,
        width=config.width,
        architecture=str(told.get("training_architecture") or config.architecture),
        k=config.k,
        hook=told.get("hook_name") or told.get("hook_point"),
        model=told.get("model_name"),
        prepend_bos=told.get("prepend_bos"),
        center_writing_weights=centred,
        dtype=config.dtype,
        metadata=told,
    )


def fold_weights(config: Config, weights: Mapping[str, Tensor], *, where: str) -> CanonicalSAE:
    """The canonical form of SAELens weights; raises CanonError naming a key that does not fit."""
    import torch

    from saebench_canon.sae import fold

    weights = dict(weights)
    if "log_threshold" in weights:
        weights["threshold"] = weights.pop("log_threshold").exp()
    _check_shapes(config, {key: tuple(each.shape) for key, each in weights.items()}, where)
    W_dec = weights["W_dec"]
    factor = weights.get("scaling_factor", weights.get("finetuning_scaling_factor"))
    if factor is not None and not torch.allclose(factor, torch.ones_like(factor)):
        if not config.finetuned:
            raise CanonError(
                "the weights hold a scaling_factor and finetuning_scaling_factor is off",
                where=where,
            )
        if (factor <= 0).any():
            raise CanonError("scaling_factor holds a value that is not above 0", where=where)
        W_dec = W_dec * factor[:, None]
    build = partial(
        fold,
        W_enc=weights["W_enc"],
        W_dec=W_dec,
        b_dec=weights["b_dec"],
        apply_b_dec_to_input=config.apply_b_dec_to_input,
        input_scale=config.input_scale,
        where=where,
    )
    if config.architecture == "gated":
        return build(
            activation="gated",
            b_gate=weights["b_gate"],
            b_mag=weights["b_mag"],
            r_mag=weights["r_mag"],
        )
    build = partial(build, b_enc=weights["b_enc"])
    if config.architecture == "standard":
        return build(activation="relu")
    if config.architecture == "topk":
        assert config.k is not None
        return build(activation="topk", k=int(config.k), rescale=config.rescale)
    if config.architecture == "jumprelu":
        return build(activation="jumprelu", threshold=weights["threshold"])
    threshold = weights["topk_threshold"].reshape(())
    if not threshold > 0:
        raise CanonError(
            "topk_threshold is 0, so a token's codes depend on the other tokens of its batch",
            where=where,
            hint="Train it further, or save it with a threshold for inference.",
        )
    return build(activation="jumprelu", threshold=threshold, rescale=config.rescale)


def from_object(sae: Any, *, where: str) -> CanonicalSAE:
    """The canonical form of an SAE object of SAELens."""
    if getattr(sae, "use_error_term", False):
        raise CanonError(
            "use_error_term is on, so its output is its input whatever its codes", where=where
        )
    config = parse_config(sae.cfg.to_dict(), where=where)
    return fold_weights(config, sae.state_dict(), where=where)


def read_folder(folder: Path) -> tuple[Config, dict[str, Entry]]:
    """The configuration and the weights' header of a folder, checked against each other."""
    where = str(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CanonError(
                f"it has no {name}" if folder.is_dir() else "there is no such folder",
                where=where,
                hint=f"An SAELens folder holds {CONFIG} and {WEIGHTS}.",
            )
    config = parse_config(read_json(folder / CONFIG), where=where, input_scale=_input_scale(folder))
    header = read_header(folder / WEIGHTS)
    _check_shapes(config, {key: entry.shape for key, entry in header.items()}, where)
    return config, header


def load_folder(folder: Path) -> CanonicalSAE:
    """The canonical form of the SAE in a folder, in the weights' precision or float32."""
    from safetensors.torch import load_file

    config, _ = read_folder(folder)
    return fold_weights(config, load_file(folder / WEIGHTS), where=str(folder))


def digest_folder(folder: Path) -> str:
    """A digest of what shapes codes and reconstructions: not the path, key order or metadata."""
    config, header = read_folder(folder)
    shaping = {
        "architecture": config.architecture,
        "k": config.k if config.architecture == "topk" else None,
        "apply_b_dec_to_input": config.apply_b_dec_to_input,
        "rescale": config.rescale,
        "input_scale": config.input_scale,
        "finetuned": config.finetuned,
    }
    digest = hashlib.sha256(json.dumps(shaping, sort_keys=True).encode())
    used = {*config.keys, "log_threshold", "scaling_factor", "finetuning_scaling_factor"}
    with (folder / WEIGHTS).open("rb") as file:
        for key in sorted(used & header.keys()):
            entry = header[key]
            digest.update(json.dumps([key, entry.dtype, entry.shape]).encode())
            file.seek(entry.start)
            left = entry.stop - entry.start
            while left > 0:
                block = file.read(min(left, 2**20))
                left -= len(block)
                digest.update(block)
    return digest.hexdigest()


def claim_saelens(path: Path) -> str | None:
    """The ref `saelens:FOLDER` when the path is an SAELens folder or one of its files."""
    folder = path.parent if path.name in (CONFIG, WEIGHTS) else path
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        return f"saelens:{folder}"
    return None


def _check_shapes(config: Config, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    d, m = config.d, config.width
    expected: dict[str, tuple[tuple[int, ...], ...]] = {
        "W_enc": ((d, m),),
        "W_dec": ((m, d),),
        "b_dec": ((d,),),
        "threshold": ((m,), ()),
        "topk_threshold": ((), (1,)),
    }
    for key in config.keys:
        stored = "log_threshold" if key == "threshold" and key not in shapes else key
        if stored not in shapes:
            raise CanonError(
                f"the weights have no {key}, which the architecture '{config.architecture}' needs",
                where=where,
                hint=f"They have {', '.join(sorted(shapes))}.",
            )
        wanted = expected.get(key, ((m,),))
        if shapes[stored] not in wanted:
            raise CanonError(
                f"{stored} has shape {list(shapes[stored])} where cfg.json says {list(wanted[0])}",
                where=where,
            )


def _positive(raw: Mapping[str, Any], key: str, where: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CanonError(f"{key} is {value!r}, not a positive whole number", where=where)
    return value


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CanonError(f"this is not JSON ({error})", where=str(path)) from error
    if not isinstance(content, dict):
        raise CanonError("this is not a JSON object", where=str(path))
    return content


def _input_scale(folder: Path) -> float | None:
    """The factor by which a training checkpoint scales activations, if it was kept beside it."""
    path = folder / SCALER
    factor = read_json(path).get("scaling_factor") if path.is_file() else None
    return float(factor) if factor else None
