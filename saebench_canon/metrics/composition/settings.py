"""When a peer has a latent too, and when a fit is of atoms that cancel."""

from __future__ import annotations

from dataclasses import dataclass

from saebench_canon.errors import CanonError
from saebench_canon.metrics.comparison.settings import Cosines


@dataclass(frozen=True)
class Limits:
    """When a latent is found, and when a fit cancels."""

    threshold: float = Cosines.threshold
    gate: float = Cosines.gate

    def check(self) -> None:
        """Refuse a threshold that is no cosine."""
        if not -1 <= self.threshold <= 1:
            raise CanonError(
                f"composition: threshold must be a cosine, −1 to 1, got {self.threshold}"
            )
