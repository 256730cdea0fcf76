"""When a latent of one SAE is found in another, and when it is missing there."""

from __future__ import annotations

from dataclasses import dataclass

from saebench_canon.errors import CanonError


@dataclass(frozen=True)
class Cosines:
    """When a latent is found, and when it is missing."""

    threshold: float = 0.7  # θ
    residual: float = 0.25  # share of a row that sums must leave for it to be missing
    gate: float = 1.2  # sum of the squared weights above which a fit cancels, and explains nothing

    def check(self) -> None:
        """Refuse a threshold that is no cosine, and a residual that is no share."""
        if not -1 <= self.threshold <= 1:
            raise CanonError(
                f"comparison: threshold must be a cosine, −1 to 1, got {self.threshold}"
            )
        if not 0 <= self.residual <= 1:
            raise CanonError(f"comparison: residual must be a share, 0 to 1, got {self.residual}")
