"""What an SAE computes, described by tensors that are still in their files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Description, Normalisation
from saebench_canon.saes.activation_words import OF_ACTIVATION, OF_ALL, check_activation
from saebench_canon.saes.memory_needed import sae_bytes
from saebench_canon.saes.weights.given import GivenArray, given_tensor
from saebench_canon.saes.weights.lazy_tensor import Stored

if TYPE_CHECKING:
    from saebench_canon.plugin.sae import CanonicalSAE

Activation = Literal["relu", "jumprelu", "topk", "batchtopk", "gated"]
FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Parameters:
    """What an SAE computes: its tensors, not read yet, and how they are used.

    `x̂ = act((x − b_dec·[apply_b_dec_to_input]) W_enc + b_enc) W_dec + b_dec`. `batchtopk` without
    a threshold is calibrated on the suite's data (Leask et al. 2025, eq. 8). The other fields are
    those of `saebench_canon.fold` and of `Description`. What is in no file of tensors (a threshold
    of a JSON file) may be given as an array, a list or a number.
    """

    W_enc: Stored  # [d, m]
    W_dec: Stored  # [m, d]
    b_dec: Stored  # [d]
    b_enc: Stored | None = None  # [m]
    activation: Activation = "relu"
    threshold: Stored | None = None  # one number or [m]
    k: float | None = None
    rescale: bool = False
    apply_b_dec_to_input: bool = False
    b_gate: Stored | None = None  # [m]
    b_mag: Stored | None = None  # [m]
    r_mag: Stored | None = None  # [m]
    input_scale: float = 1.0
    activation_mean: Stored | None = None  # [d], subtracted from x and added to x̂
    normalize: Normalisation = "none"
    architecture: str | None = None  # the name its authors use; default: the activation
    hook: str | None = None
    model: str | None = None
    prepend_bos: bool | None = None
    center_writing_weights: bool | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Replace arrays and numbers that stand in the place of tensors of a file."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        known = [value.source.path for value in values.values() if isinstance(value, Stored)]
        for name in sorted(OF_ALL.union(*OF_ACTIVATION.values())):
            if values[name] is None and name in ("W_enc", "W_dec", "b_dec"):
                raise CanonError(f"{name} is missing", where=str(known[0]) if known else None)
            if values[name] is not None and not isinstance(values[name], Stored):
                path = known[0] if known else Path("Parameters")
                object.__setattr__(self, name, given_tensor(name, values[name], path=path))

    @property
    def d(self) -> int:
        """The width of the activations."""
        return self.W_dec.shape[1]

    @property
    def width(self) -> int:
        """The number of latents."""
        return self.W_dec.shape[0]

    @property
    def tensors(self) -> dict[str, Stored]:
        """The tensors by name."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in named if isinstance(value, Stored)}

    @property
    def shaping(self) -> dict[str, Any]:
        """What determines codes and reconstructions besides the tensors."""
        return {
            "activation": self.activation,
            "k": self.k if self.activation in ("topk", "batchtopk") else None,
            "rescale": self.rescale,
            "apply_b_dec_to_input": self.apply_b_dec_to_input,
            "input_scale": self.input_scale,
            "normalize": self.normalize,
        }

    def check(self) -> None:
        """Raise CanonError, before any memory is taken, for tensors that do not fit each other."""
        if len(self.W_dec.shape) != 2:
            raise self.W_dec.wrong(f"has shape {list(self.W_dec.shape)}, not [m, d]")
        d, m = self.d, self.width
        if d == 0 or m == 0:
            raise self.W_dec.wrong(f"has shape {list(self.W_dec.shape)}, which is empty")
        where = str(self.W_dec.source.path)
        check_activation(self.activation, self.tensors, where=where)
        shapes = {"W_enc": (d, m), "W_dec": (m, d), "b_dec": (d,), "activation_mean": (d,)}
        for name, stored in self.tensors.items():
            shape = shapes.get(name, (m,))
            scalar = name == "threshold" and stored.shape in ((), (1,))
            if stored.shape != shape and not scalar:
                in_file = list(stored.shape[::-1] if stored.transposed else stored.shape)
                fits = list(shape[::-1] if stored.transposed else shape)
                raise stored.wrong(f"has shape {in_file} where {fits} fits the decoder")
            if stored.dtype not in FLOATS:
                raise stored.wrong(f"is of {stored.dtype}, not of floating point numbers")
        if self.activation in ("topk", "batchtopk"):
            self._check_k(m)

    def _check_k(self, m: int) -> None:
        k, where = self.k, str(self.W_dec.source.path)
        if self.activation == "batchtopk" and self.threshold is not None:
            return
        if isinstance(k, bool) or not isinstance(k, int | float) or not 0 < k <= m:
            raise CanonError(f"k is {k!r} where the SAE has {m} latents", where=where)
        if self.activation == "topk" and k != int(k):
            raise CanonError(f"k is {k}, and TopK keeps a whole number of latents", where=where)

    def describe(self) -> Description:
        """What the checkpoint says about the SAE, without its weights."""
        return Description(
            d=self.d,
            width=self.width,
            architecture=self.architecture or self.activation,
            k=self.k,
            hook=self.hook,
            model=self.model,
            prepend_bos=self.prepend_bos,
            center_writing_weights=self.center_writing_weights,
            dtype=self.W_dec.dtype,
            normalize=self.normalize,
            calibrated=self.activation != "batchtopk" or self.threshold is not None,
            metadata=self.metadata,
        )

    def digest(self) -> str:
        """A digest of all that determines codes and reconstructions."""
        digest = hashlib.sha256(json.dumps(self.shaping, sort_keys=True).encode())
        for name, stored in sorted(self.tensors.items()):
            header = [name, stored.dtype, stored.shape, stored.transposed]
            header += ["exp"] if stored.logarithm else []
            digest.update(json.dumps(header).encode())
            for block in stored.source.blocks(stored.name):
                digest.update(block)
        return digest.hexdigest()

    def bytes_to_load(self, dtype: str) -> int:
        """The memory that loading takes besides the mapped pages of its files."""
        packed = sum(stored.source.packed(stored.name) for stored in self.tensors.values())
        return packed + sae_bytes(self.d, self.width, dtype, stored=self.W_dec.dtype)

    def fold(self, *, where: str) -> CanonicalSAE:
        """The SAE in canonical form, in the weights' precision or float32."""
        from saebench_canon.saes.fold import fold

        tensors: dict[str, Any] = {name: stored.tensor() for name, stored in self.tensors.items()}
        if self.threshold is not None and self.threshold.shape == (1,):
            tensors["threshold"] = tensors["threshold"].reshape(())
        try:
            return fold(
                **tensors,
                activation=self.activation,
                k=self.k,
                rescale=self.rescale,
                apply_b_dec_to_input=self.apply_b_dec_to_input,
                input_scale=self.input_scale,
                where=where,
            )
        except CanonError as error:
            stored = self.tensors.get(error.what.partition(" ")[0])
            if stored is None or isinstance(stored.source, GivenArray):
                raise
            path = str(stored.source.path)
            raise CanonError(f"{error.what} (read from {stored.name})", where=path) from error
