"""A checkpoint format: one function that says which tensor is what, made into an adapter.

    @checkpoint("npz-relu", files=["weights.npz"])
    def npz_relu(files):
        w = files.npz("weights.npz")
        return Parameters(W_enc=w["enc"].T, b_enc=w["bias"], W_dec=w["dec"], b_dec=w["mean"])

The function sees names, shapes and the configuration, but no weights. So one function describes an
SAE, checks its files, identifies it and loads it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.ref import Ref
from saebench_canon.saes.files import Files
from saebench_canon.saes.hub_download import cached_files, fetch, repository_of
from saebench_canon.saes.memory_needed import check_memory
from saebench_canon.saes.parameters import Activation, Parameters

__all__ = ["Activation", "CheckpointAdapter", "Parameters", "checkpoint"]

if TYPE_CHECKING:
    import torch

    from saebench_canon.plugin.sae import CanonicalSAE


@dataclass(frozen=True)
class Format:
    """How checkpoints of a format look; the fields are explained in `checkpoint`."""

    scheme: str
    files: tuple[str, ...]
    optional: tuple[str, ...] = ()
    claims: Callable[[Files], bool] | None = None
    known: Callable[[Ref], Description] | None = None
    calibrates: bool = False
    or_files: tuple[str, ...] = ()

    @property
    def layouts(self) -> tuple[tuple[str, ...], ...]:
        """The files that a checkpoint consists of, by whichever names."""
        return (self.files, self.or_files) if self.or_files else (self.files,)


class CheckpointAdapter:
    """Loads one format's checkpoints: `SCHEME:PATH`, and `SCHEME://OWNER/NAME/FOLDER` of a hub."""

    def __init__(self, form: Format, read: Callable[[Files], Parameters]) -> None:
        self.scheme = form.scheme
        self.calibrates = form.calibrates
        self.help = inspect.cleandoc(read.__doc__ or "")
        self._read = read
        self._form = form
        self._guessed: dict[str, Description] = {}  # of hub refs that were not on this machine

    def parameters(self, path: Path) -> Parameters:
        """What the checkpoint at a path computes; raises CanonError if it is not of this format.

        A tensor that the format does not know is an error: it may change what the SAE computes.
        """
        files = Files(path)
        try:
            parameters = self._read(files)
        except CanonError:
            raise
        except Exception as error:  # a format's own code on a file that it does not expect
            raise CanonError(
                f"the checkpoint cannot be read as {self.scheme} ({type(error).__name__}: {error})",
                where=str(path),
            ) from error
        for tensors in files.opened:
            if tensors.unused:
                raise CanonError(
                    f"the file holds {tensors.unused[0]}, which is no part of the format "
                    f"{self.scheme}",
                    where=str(tensors.path),
                )
        parameters.check()
        if parameters.metadata:
            return parameters
        configured = {key: value for config in files.configs for key, value in config.items()}
        return replace(parameters, metadata=configured)

    def claim(self, path: Path) -> str | None:
        """The ref of a bare path that holds the format's files."""
        files = Files(path)
        if path.is_file():
            if not any(files.find(pattern) for layout in self._form.layouts for pattern in layout):
                return None
            if len(self._form.files) > 1:
                files = Files(path.parent)
        if not self._holds(files):
            return None
        if self._form.claims is not None:
            try:
                if not self._form.claims(files):
                    return None
            except CanonError:  # a damaged file of this name most likely has this format
                pass
        return f"{self.scheme}:{files.path}"

    def identity(self, ref: Ref) -> str:
        """A digest of a local checkpoint's content; a hub ref's name and revision as written."""
        if ref.local:
            return f"{self.scheme}-sha256:{self.parameters(ref.path).digest()}"
        return str(ref)

    def repository(self, ref: Ref) -> tuple[str, str]:
        """The hub's repository of a ref and the folder in it."""
        return repository_of(ref)

    def describe(self, ref: Ref) -> Description:
        """What the checkpoint's files say; if they are not on this machine, what the ref tells."""
        if ref.local:
            return self.parameters(ref.path).describe()
        folder = cached_files(*repository_of(ref), ref.revision)
        if folder is not None and self._holds(Files(folder)):
            self._guessed.pop(str(ref), None)
            return self.parameters(folder).describe()
        if self._form.known is not None:
            description = self._form.known(ref)
        else:
            description = Description(d=None, width=None, architecture=self.scheme)
        return self._guessed.setdefault(str(ref), description)

    def load(
        self, ref: Ref, *, device: str = "cpu", dtype: str | torch.dtype = "float32"
    ) -> CanonicalSAE:
        """The SAE in canonical form."""
        import torch

        path = ref.path if ref.local else self._fetched(ref)
        parameters = self.parameters(path)
        self._check_guess(ref, parameters.describe())
        dtype_name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
        needed = parameters.bytes_to_load(dtype_name)
        check_memory(needed, f"an SAE of {parameters.width} latents", where=str(path))
        sae = parameters.fold(where=str(path))
        return sae.to(device, getattr(torch, dtype) if isinstance(dtype, str) else dtype)

    def list(self) -> Iterator[str]:
        """No ref: neither paths nor hub names are known in advance."""
        return iter(())

    def _holds(self, files: Files) -> bool:
        """Whether the folder holds the format's files, by either set of names."""
        return any(all(files.find(pattern) for pattern in layout) for layout in self._form.layouts)

    def _check_guess(self, ref: Ref, description: Description) -> None:
        """Refuse, once, an SAE that needs other activations than its guessed description said."""
        guess = self._guessed.pop(str(ref), description)
        if (guess.normalize, bool(guess.center_writing_weights)) != (
            description.normalize,
            bool(description.center_writing_weights),
        ):
            raise CanonError(
                f"the configuration of '{ref}', now downloaded, needs other activations than "
                "were planned without it",
                hint="Run the command again: the plan will use the configuration.",
            )

    def _fetched(self, ref: Ref) -> Path:
        """The folder in the hub's cache that holds a ref's files, by either set of names."""
        folder = cached_files(*repository_of(ref), ref.revision)
        if folder is not None and self._holds(Files(folder)):
            return folder
        if any("*" in name for name in self._form.files):
            raise CanonError(
                f"'{ref}' is not in the hub's cache, and {self.scheme} files have no fixed names",
                hint=f"Download the file and give its path: {self.scheme}:PATH.",
            )
        errors = []
        for layout in self._form.layouts:
            try:
                return fetch(ref, layout, optional=self._form.optional)
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

    `files` names the format's files (patterns such as `*.pt` are allowed for paths); `or_files` is
    a second set of names for them; `optional` names files that may be missing. `claims` decides
    whether a path is of this format where file names alone do not; `known` describes a hub ref that
    is not on this machine; `calibrates` says that its SAEs may lack a threshold.
    """

    form = Format(scheme, tuple(files), tuple(optional), claims, known, calibrates, tuple(or_files))

    def decorate(function: Callable[[Files], Parameters]) -> CheckpointAdapter:
        return CheckpointAdapter(form, function)

    return decorate
