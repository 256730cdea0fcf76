"""What is in a file of activations? The kind of data that the key `file` picks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError, placed
from saebench_canon.plugin.data import DataSize, DataSource, DataSpec
from saebench_canon.plugin.fingerprint import Remembers, file_digest
from saebench_canon.saes.weights.safetensors_file import read_header

if TYPE_CHECKING:
    from saebench_canon.plugin.activations import Acts


@dataclass(frozen=True)
class ActivationFile(DataSource):
    """A safetensors file: `acts` [n, d] and optionally each token's document `doc` [n]."""

    file: Path

    def check(self, data: DataSpec) -> None:
        """Read the header; raises CanonError for a file without activations."""
        self._shape()

    def size(self, data: DataSpec) -> DataSize:
        """Tokens and d, from the header."""
        tokens, d = self._shape()
        return DataSize(tokens if data.tokens is None else min(tokens, data.tokens), d)

    def identity(self, data: DataSpec, memory: Remembers) -> Mapping[str, Any]:
        """The digest of its content."""
        return {"file": file_digest(self.file)}

    def acts(self, data: DataSpec) -> Acts:
        """The activations; without `doc` each token is its own document."""
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from saebench_canon.plugin.activations import Acts

        with placed(data.where):
            self._shape()
        try:
            tensors = load_file(self.file)
        except (SafetensorError, OSError) as error:
            raise CanonError(
                f"{self.file} is not a safetensors file: {error}", where=data.where
            ) from None
        x = tensors["acts"]
        return Acts(x, tensors.get("doc", torch.arange(len(x))))

    def describe(self) -> str:
        """The file's name."""
        return f"activations of {self.file.name}"

    def __str__(self) -> str:
        return str(self.file)

    def _shape(self) -> tuple[int, int]:
        """Tokens and d; raises CanonError for what the header says is no activations."""
        entries = read_header(self.file)
        acts, doc = entries.get("acts"), entries.get("doc")
        if acts is None or len(acts.shape) != 2 or not acts.is_float or 0 in acts.shape:
            found = ", ".join(
                f"{name} {list(entry.shape)} {entry.dtype}" for name, entry in entries.items()
            )
            raise CanonError(
                f"{self.file} has no 'acts' [n, d] of floating point numbers",
                hint=f"It has {found}." if found else None,
            )
        if doc is not None and (doc.shape != acts.shape[:1] or doc.is_float):
            raise CanonError(
                f"'doc' of {self.file} is not [n] whole numbers",
                hint=f"It is {list(doc.shape)} {doc.dtype}, and 'acts' is {list(acts.shape)}.",
            )
        return acts.shape[0], acts.shape[1]
