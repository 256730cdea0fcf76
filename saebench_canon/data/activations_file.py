"""What is in a file of activations? The kind of data that the key `file` picks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
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

        try:
            tensors = load_file(self.file)
        except (SafetensorError, OSError) as error:
            raise CanonError(
                f"{self.file} is not a safetensors file: {error}", where=data.where
            ) from None
        x = tensors.get("acts")
        if x is None or x.ndim != 2 or not x.is_floating_point() or len(x) == 0:
            tensors_found = ", ".join(
                f"{key} {list(tensor.shape)}" for key, tensor in tensors.items()
            )
            raise CanonError(
                f"{self.file} has no 'acts' [n, d] of floating point numbers",
                where=data.where,
                hint=f"It has {tensors_found}." if tensors_found else None,
            )
        doc = tensors.get("doc", torch.arange(len(x)))
        if doc.shape != (len(x),) or doc.is_floating_point():
            raise CanonError(f"'doc' of {self.file} is not [n] whole numbers", where=data.where)
        return Acts(x, doc)

    def __str__(self) -> str:
        return str(self.file)

    def _shape(self) -> tuple[int, int]:
        acts = read_header(self.file).get("acts")
        if acts is None or len(acts.shape) != 2:
            raise CanonError(f"{self.file} has no 'acts' [n, d]")
        return acts.shape[0], acts.shape[1]
