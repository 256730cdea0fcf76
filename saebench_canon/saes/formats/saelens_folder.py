"""SAELens checkpoints: which tensor is what, in a folder and in an object in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Description
from saebench_canon.saes.checkpoint import Parameters, checkpoint
from saebench_canon.saes.files import Files
from saebench_canon.saes.formats.saelens_config import ARCHITECTURES, SaeLensConfig, parse_config
from saebench_canon.saes.weights.lazy_tensor import Stored, Tensors

if TYPE_CHECKING:
    from torch import Tensor

    from saebench_canon.plugin.sae import CanonicalSAE

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
SCALER = "activation_scaler.json"  # saved with training checkpoints


@checkpoint("saelens", files=[CONFIG, WEIGHTS], optional=[SCALER], calibrates=True)
def LOCAL(files: Files) -> Parameters:  # noqa: N802  the decorator makes a constant
    """SAELens' inference and training checkpoints."""
    return read(files)


claim_saelens = LOCAL.claim


def read(
    files: Files, *, overrides: Mapping[str, Any] | None = None, scale: float | None = None
) -> Parameters:
    """What a folder's SAE computes; a release's `overrides` replace values of its cfg.json.

    `scale` is the factor of activations that a release gives; a training checkpoint has its own.
    """
    raw = {**files.json(CONFIG), **(overrides or {})}
    if scale is None and files.has(SCALER):
        scale = _factor(files)
    config = parse_config(raw, where=str(files.folder / CONFIG), input_scale=scale)
    return parameters(config, files.safetensors(WEIGHTS))


def parameters(config: SaeLensConfig, w: Tensors) -> Parameters:
    """What an SAE of this configuration computes with these tensors."""
    for name, shape in (("W_enc", (config.d, config.width)), ("W_dec", (config.width, config.d))):
        if w[name].shape != shape:
            raise w[name].wrong(
                f"has shape {list(w[name].shape)} where {CONFIG} says {list(shape)}"
            )
    activation = ARCHITECTURES[config.architecture]
    shared = Parameters(
        W_enc=w["W_enc"],
        W_dec=_decoder(config, w),
        b_dec=w["b_dec"],
        activation=activation,
        k=config.k,
        rescale=config.rescale,
        apply_b_dec_to_input=config.apply_b_dec_to_input,
        input_scale=config.input_scale,
        normalize=config.normalize,
        architecture=config.trained_architecture,
        hook=config.text("hook_name", "hook_point"),
        model=config.text("model_name"),
        prepend_bos=config.flag("prepend_bos"),
        center_writing_weights=config.centred,
        metadata=config.metadata,
    )
    if activation == "gated":
        return replace(shared, b_gate=w["b_gate"], b_mag=w["b_mag"], r_mag=w["r_mag"])
    biased = replace(shared, b_enc=w["b_enc"])
    if activation == "jumprelu":
        return replace(biased, threshold=_threshold(w))
    if activation == "batchtopk":  # a training checkpoint, whose threshold starts at 0
        level = w["topk_threshold"]
        return biased if level.number() <= 0 else replace(biased, threshold=level)
    return biased


def describe(config: SaeLensConfig) -> Description:
    """What the configuration alone says about the SAE."""
    return Description(
        d=config.d,
        width=config.width,
        architecture=config.trained_architecture,
        k=config.k,
        hook=config.text("hook_name", "hook_point"),
        model=config.text("model_name"),
        prepend_bos=config.flag("prepend_bos"),
        center_writing_weights=config.centred,
        dtype=(config.text("dtype") or "float32").removeprefix("torch."),
        normalize=config.normalize,
        metadata=config.metadata,
    )


def object_parameters(sae: Any, *, where: str) -> Parameters:
    """What an SAE object of SAELens computes."""
    if getattr(sae, "use_error_term", False):
        raise CanonError(
            "use_error_term is on, so the output equals the input whatever the codes are",
            where=where,
        )
    config = parse_config(sae.cfg.to_dict(), where=where)
    source = ObjectTensors(sae.state_dict())
    stored = {
        name: Stored(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), source)
        for name, tensor in source.state.items()
    }
    tensors = Tensors(source.path, stored)
    with _errors_of_object(where):
        sae_parameters = parameters(config, tensors)
        sae_parameters.check()
    if tensors.unused:
        raise CanonError(
            f"the SAE holds {tensors.unused[0]}, which is no part of its architecture", where=where
        )
    return sae_parameters


def from_object(sae: Any, *, where: str) -> CanonicalSAE:
    """The canonical form of an SAE object of SAELens.

    Raises CanonError also if the SAE normalises each activation: the activations that it is
    measured on must be normalised alike, which only the description of a checkpoint can request.
    """
    sae_parameters = object_parameters(sae, where=where)
    if sae_parameters.normalize != "none":
        raise CanonError(
            f"normalize_activations is '{sae_parameters.normalize}', which is not supported for an "
            "SAE in memory",
            where=where,
            hint="Save it and name its folder.",
        )
    return fold_object(sae_parameters, where=where)


def fold_object(sae_parameters: Parameters, *, where: str) -> CanonicalSAE:
    """The canonical form of an object with these parameters."""
    with _errors_of_object(where):
        return sae_parameters.fold(where=where)


@contextmanager
def _errors_of_object(where: str) -> Iterator[None]:
    """Name the object in errors raised inside the block: its tensors are in no file."""
    try:
        yield
    except CanonError as error:
        raise CanonError(error.what, where=where, hint=error.hint) from error


@dataclass(frozen=True)
class ObjectTensors:
    """The tensors of an object, as the source of `Stored` ones."""

    state: Mapping[str, Tensor] = field(repr=False)
    path: Path = Path("state_dict")

    def read(self, name: str) -> Tensor:
        """One of the tensors."""
        return self.state[name].detach()

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of one of the tensors."""
        import torch

        flat = self.read(name).cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().tobytes()

    def packed(self, name: str) -> int:
        """No bytes: the tensor is in memory already."""
        return 0


@dataclass(frozen=True)
class Finetuned:
    """Decoder rows, each multiplied by its factor when they are read."""

    rows: Stored
    factor: Stored
    enabled: bool  # finetuning_scaling_factor in cfg.json

    @property
    def path(self) -> Path:
        """The rows' file."""
        return self.rows.source.path

    def read(self, name: str) -> Tensor:
        """The rows, in float32 or wider unless all factors are 1."""
        import torch

        rows, factor = self.rows.tensor(), self.factor.tensor().to(torch.float64)
        if torch.allclose(factor, torch.ones_like(factor)):
            return rows
        if not self.enabled:
            raise self.factor.wrong("is not 1 and finetuning_scaling_factor is off")
        if not (factor > 0).all():
            raise self.factor.wrong("holds a value that is not above 0")
        wide = rows if self.rows.dtype == "float64" else rows.float()
        return wide * factor[:, None].to(wide)

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of rows and factors."""
        yield f"finetuned {self.enabled}".encode()
        yield from self.rows.source.blocks(self.rows.name)
        yield from self.factor.source.blocks(self.factor.name)

    def packed(self, name: str) -> int:
        """Bytes that the product takes."""
        return max(4, self.rows.nbytes // max(1, math.prod(self.rows.shape))) * math.prod(
            self.rows.shape
        )


def _decoder(config: SaeLensConfig, w: Tensors) -> Stored:
    """The decoder rows, with the factors that versions up to 5.x could add after training."""
    rows: Stored = w["W_dec"]
    name = next((key for key in ("scaling_factor", "finetuning_scaling_factor") if key in w), "")
    if not name:
        return rows
    factor: Stored = w[name]
    if factor.shape != (config.width,):
        raise factor.wrong(f"has shape {list(factor.shape)} where {CONFIG} says {[config.width]}")
    return replace(rows, source=Finetuned(rows, factor, config.finetuned))


def _threshold(w: Tensors) -> Stored:
    """The thresholds; training checkpoints up to 6.x hold their logarithms."""
    if "log_threshold" not in w:
        threshold: Stored = w["threshold"]
        return threshold
    log: Stored = w["log_threshold"]
    return log.exp()


def _factor(files: Files) -> float | None:
    """The factor by which a training checkpoint scales activations, if it is not folded yet."""
    factor = files.json(SCALER).get("scaling_factor")
    if factor is None:
        return None
    number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not number or not 0 < factor < math.inf:
        raise CanonError(
            f"scaling_factor is {factor!r}, not a number above 0", where=str(files.folder / SCALER)
        )
    return float(factor)
