"""An adapter: it loads the SAEs of one scheme, and describes them without loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from saebench_canon.plugin.ref import Ref

if TYPE_CHECKING:
    import torch

    from saebench_canon.plugin.sae import CanonicalSAE

Normalisation = Literal["none", "layer_norm", "constant_norm_rescale"]


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself; None where it says nothing."""

    d: int | None
    width: int | None
    architecture: str
    k: float | None = None
    hook: str | None = None
    model: str | None = None
    prepend_bos: bool | None = None
    center_writing_weights: bool | None = None
    dtype: str | None = None
    normalize: Normalisation = "none"  # applied to each activation before the SAE reads it
    calibrated: bool = True  # whether it has the threshold that its codes need
    metadata: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Adapter(Protocol):
    """Owns one URI scheme."""

    scheme: str

    def identity(self, ref: Ref) -> str:
        """A string that changes with the SAE and does not depend on its path; loads no weights."""

    def describe(self, ref: Ref) -> Description:
        """What the checkpoint says of itself, without its weights and without torch."""

    def load(
        self, ref: Ref, *, device: str = "cpu", dtype: str | torch.dtype = "float32"
    ) -> CanonicalSAE:
        """The SAE in canonical form; raises CanonError with the reason if there is none."""

    def list(self) -> Iterable[str]:
        """Refs of this scheme that are known without a search."""
