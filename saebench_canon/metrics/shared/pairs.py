"""What metrics of a pair ask for together: both SAEs with their codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saebench_canon.plugin.metric import Mark
from saebench_canon.plugin.signature import InputGroup

if TYPE_CHECKING:
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.plugin.sae import CanonicalSAE

NO_CODES = Mark("note", "no activations: every latent counts as live")


@dataclass(frozen=True, eq=False)
class SAEPair(InputGroup):
    """A smaller and a larger SAE, with their codes where there is data."""

    small: CanonicalSAE
    large: CanonicalSAE
    small_codes: Codes | None = None
    large_codes: Codes | None = None

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The note that without codes every latent counts as live."""
        return (NO_CODES,) if self.small_codes is None or self.large_codes is None else ()


@dataclass(frozen=True, eq=False)
class CodedPair(InputGroup):
    """A smaller and a larger SAE with their codes."""

    small: CanonicalSAE
    large: CanonicalSAE
    small_codes: Codes
    large_codes: Codes
