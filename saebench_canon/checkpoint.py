"""A checkpoint format: one function that says which tensor is what, and is then an adapter.

    @checkpoint("npz-relu", files=["weights.npz"])
    def npz_relu(files):
        w = files.npz("weights.npz")
        return Parameters(W_enc=w["enc"].T, b_enc=w["bias"], W_dec=w["dec"], b_dec=w["mean"])

The function sees names, shapes and numbers of the configuration, never weights: so the same one
describes an SAE, checks it against its files, tells what it is, and loads it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saebench_canon.adapter import Description, Normalisation
from saebench_canon.errors import CanonError
from saebench_canon.files import Files
from saebench_canon.hub_files import cached_files, fetch, repository_of
from saebench_canon.memory import check_memory, sae_bytes
from saebench_canon.ref import Ref
from saebench_canon.weights.stored import Stored

if TYPE_CHECKING:
    import torch

    from saebench_canon.sae import CanonicalSAE

Activation = Literal["relu", "jumprelu", "topk", "batchtopk", "gated"]
FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Parameters:
    """What an SAE computes: its tensors, still in their file, and how they are used.

    `x̂ = act((x − b_dec·[apply_b_dec_to_input]) W_enc + b_enc) W_dec + b_dec`. `batchtopk` without
    a threshold is calibrated on the suite's data (Leask et al. 2025, eq. 8). The other fields are
    those of `saebench_canon.sae.fold` and of `Description`.
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
    normalize: Normalisation = "none"
    architecture: str | None = None  # as its makers call it; absent: the activation
    hook: str | None = None
    model: str | None = None
    prepend_bos: bool | None = None
    center_writing_weights: bool | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

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
        named = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: value for name, value in named if isinstance(value, Stored)}

    @property
    def shaping(self) -> dict[str, Any]:
        """What shapes codes and reconstructions beside the tensors."""
        return {
            "activation": self.activation,
            "k": self.k if self.activation in ("topk", "batchtopk") else None,
            "rescale": self.rescale,
            "apply_b_dec_to_input": self.apply_b_dec_to_input,
            "input_scale": self.input_scale,
            "normalize": self.normalize,
        }

    def check(self) -> None:
        """Refuse, before any memory is taken, tensors that do not fit each other."""
        if len(self.W_dec.shape) != 2:
            raise self.W_dec.wrong(f"has shape {list(self.W_dec.shape)}, not [m, d]")
        d, m = self.d, self.width
        if d == 0 or m == 0:
            raise self.W_dec.wrong(f"has shape {list(self.W_dec.shape)}: there is nothing in it")
        wanted = {"W_enc": (d, m), "W_dec": (m, d), "b_dec": (d,)}
        for name, stored in self.tensors.items():
            shape = wanted.get(name, (m,))
            one = name == "threshold" and stored.shape in ((), (1,))
            if stored.shape != shape and not one:
                told = list(stored.shape[::-1] if stored.transposed else stored.shape)
                fits = list(shape[::-1] if stored.transposed else shape)
                raise stored.wrong(f"has shape {told} where {fits} fits the decoder")
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
            raise CanonError(f"k is {k} and counts latents of a token", where=where)

    def describe(self) -> Description:
        """What the checkpoint says of itself."""
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
        """A digest of what shapes codes and reconstructions."""
        digest = hashlib.sha256(json.dumps(self.shaping, sort_keys=True).encode())
        for name, stored in sorted(self.tensors.items()):
            told = [name, stored.dtype, stored.shape, stored.transposed]
            told += ["exp"] if stored.logarithm else []
            digest.update(json.dumps(told).encode())
            for block in stored.source.blocks(stored.name):
                digest.update(block)
        return digest.hexdigest()

    def fold(self, *, where: str) -> CanonicalSAE:
        """The SAE in canonical form, in the weights' precision or float32."""
        from saebench_canon.sae import fold

        tensors: dict[str, Any] = {name: each.tensor() for name, each in self.tensors.items()}
        if self.threshold is not None and self.threshold.shape == (1,):
            tensors["threshold"] = tensors["threshold"].reshape(())
        activation = self.activation
        if activation == "batchtopk" and self.threshold is not None:
            activation = "jumprelu"
        try:
            return fold(
                **tensors,
                activation=activation,
                k=self.k if activation in ("topk", "batchtopk") else None,
                rescale=self.rescale,
                apply_b_dec_to_input=self.apply_b_dec_to_input,
                input_scale=self.input_scale,
                where=where,
            )
        except CanonError as error:
            stored = self.tensors.get(error.what.partition(" ")[0])
            if stored is None:
                raise
            path = str(stored.source.path)
            raise CanonError(f"{error.what} (read from {stored.name})", where=path) from error


class CheckpointAdapter:
    """Loads one format's checkpoints: `SCHEME:PATH`, and `SCHEME://OWNER/NAME/FOLDER` of a hub."""

    def __init__(
        self,
        scheme: str,
        read: Callable[[Files], Parameters],
        files: Sequence[str],
        optional: Sequence[str] = (),
        claims: Callable[[Files], bool] | None = None,
        known: Callable[[Ref], Description] | None = None,
        calibrates: bool = False,
        or_files: Sequence[str] = (),
    ) -> None:
        self.scheme = scheme
        self.files = tuple(files)
        self.layouts = (self.files, tuple(or_files)) if or_files else (self.files,)
        self.optional = tuple(optional)
        self.calibrates = calibrates
        self.help = inspect.cleandoc(read.__doc__ or "")
        self._read = read
        self._claims = claims
        self._known = known
        self._guessed: dict[str, Description] = {}  # of hub refs that were not on this machine

    def parameters(self, path: Path) -> Parameters:
        """What the checkpoint at a path computes; raises CanonError with the reason if it is none.

        What its files hold and the format does not know is an error: it may change the meaning.
        """
        files = Files(path)
        try:
            parameters = self._read(files)
        except CanonError:
            raise
        except Exception as error:  # a format's own code on a file that is not as it thinks
            raise CanonError(
                f"it does not read as {self.scheme} ({type(error).__name__}: {error})",
                where=str(path),
            ) from error
        for held in files.opened:
            if held.unasked:
                raise CanonError(
                    f"it holds {held.unasked[0]}, which is no part of the format {self.scheme}",
                    where=str(held.path),
                )
        parameters.check()
        return parameters

    def claim(self, path: Path) -> str | None:
        """The ref of a bare path that holds the format's files."""
        files = Files(path)
        if path.is_file():
            if not any(files.find(pattern) for layout in self.layouts for pattern in layout):
                return None
            if len(self.files) > 1:
                files = Files(path.parent)
        if not self._holds(files):
            return None
        if self._claims is not None:
            try:
                if not self._claims(files):
                    return None
            except CanonError:  # a damaged file of this name is still this format's, if anyone's
                pass
        return f"{self.scheme}:{files.path}"

    def identity(self, ref: Ref) -> str:
        """A digest of a local checkpoint's content; a hub name and revision as they are written."""
        if ref.local:
            return f"{self.scheme}-sha256:{self.parameters(ref.path).digest()}"
        return str(ref)

    def describe(self, ref: Ref) -> Description:
        """What the checkpoint says of itself; of one that is not on this machine, what is known."""
        if ref.local:
            return self.parameters(ref.path).describe()
        there = cached_files(*repository_of(ref), ref.revision)
        if there is not None and self._holds(Files(there)):
            self._guessed.pop(str(ref), None)
            return self.parameters(there).describe()
        if self._known is not None:
            told = self._known(ref)
        else:
            told = Description(d=None, width=None, architecture=self.scheme)
        return self._guessed.setdefault(str(ref), told)

    def load(
        self, ref: Ref, *, device: str = "cpu", dtype: str | torch.dtype = "float32"
    ) -> CanonicalSAE:
        """The SAE in canonical form."""
        import torch

        path = ref.path if ref.local else self._fetched(ref)
        parameters = self.parameters(path)
        self._check_guess(ref, parameters.describe())
        kind = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
        needed = sae_bytes(parameters.d, parameters.width, kind)
        check_memory(needed, f"an SAE of {parameters.width} latents", where=str(path))
        sae = parameters.fold(where=str(path))
        return sae.to(device, getattr(torch, dtype) if isinstance(dtype, str) else dtype)

    def list(self) -> Iterator[str]:
        """Nothing: neither paths nor hub names are known beforehand."""
        return iter(())

    def _holds(self, files: Files) -> bool:
        """Whether the format's files are there, by whichever names."""
        return any(all(files.find(pattern) for pattern in layout) for layout in self.layouts)

    def _check_guess(self, ref: Ref, told: Description) -> None:
        """Refuse, once, an SAE that reads activations otherwise than was planned without it."""
        guess = self._guessed.pop(str(ref), told)
        if (guess.normalize, bool(guess.center_writing_weights)) != (
            told.normalize,
            bool(told.center_writing_weights),
        ):
            raise CanonError(
                f"'{ref}' has been downloaded, and its configuration asks for other activations "
                "than were planned before it could be read",
                hint="Run again: now it is known.",
            )

    def _fetched(self, ref: Ref) -> Path:
        """The folder in the hub's cache that holds a ref's files, by whichever names."""
        there = cached_files(*repository_of(ref), ref.revision)
        if there is not None and self._holds(Files(there)):
            return there
        if any("*" in name for name in self.files):
            raise CanonError(
                f"'{ref}' is not in the hub's cache, and {self.scheme} files have no fixed names",
                hint=f"Download the file and name it: {self.scheme}:PATH.",
            )
        errors = []
        for layout in self.layouts:
            try:
                return fetch(ref, layout, optional=self.optional)
            except CanonError as error:
                errors.append(error)
        raise errors[0]


def checkpoint(
    scheme: str,
    *,
    files: Iterable[str],
    optional: Iterable[str] = (),
    claims: Callable[[Files], bool] | None = None,
    known: Callable[[Ref], Description] | None = None,
    calibrates: bool = False,
    or_files: Iterable[str] = (),
) -> Callable[[Callable[[Files], Parameters]], CheckpointAdapter]:
    """Make an adapter of a function from a checkpoint's files to its parameters.

    `files` names what the format consists of (patterns such as `*.pt` are allowed for paths);
    `optional` what may lie beside it; `claims` tells where names alone do not; `known` describes a
    hub ref that is not on this machine; `calibrates` that its SAEs may lack a threshold;
    `or_files` names the files a second way.
    """

    def decorate(function: Callable[[Files], Parameters]) -> CheckpointAdapter:
        return CheckpointAdapter(
            scheme, function, list(files), list(optional), claims, known, calibrates, list(or_files)
        )

    return decorate
