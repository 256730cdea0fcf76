"""The settings of stitching: when a latent is novel, and which paths are computed."""

from __future__ import annotations

from dataclasses import dataclass

from saebench_canon.errors import CanonError, nearest

ORDERINGS = ("random", "max_cos", "greedy")


@dataclass(frozen=True)
class Novelty:
    """When a large latent counts as novel, and when as a sum of small ones."""

    threshold: float = 0.7  # θ, a cosine
    span_atoms: int = 4
    span_least: float = 0.25

    def check(self) -> None:
        """Refuse a threshold that is not a cosine and a count below 1."""
        if not -1 <= self.threshold <= 1:
            raise CanonError(
                f"stitching: threshold must be a cosine, −1 to 1, got {self.threshold}"
            )
        if self.span_atoms < 1:
            raise CanonError(f"stitching: span_atoms must be 1 or more, got {self.span_atoms}")


@dataclass(frozen=True)
class Paths:
    """The orderings in which the path is computed, and the number of random orders."""

    orders: int = 3
    orderings: tuple[str, ...] = ("random", "max_cos")

    def check(self) -> None:
        """Refuse a number of orders below 0 and an unknown ordering."""
        if self.orders < 0:
            raise CanonError(f"stitching: orders must be 0 or more, got {self.orders}")
        for name in self.orderings:
            if name not in ORDERINGS:
                hint = nearest(name, ORDERINGS)
                raise CanonError(f"stitching: unknown ordering '{name}'", hint=hint)
