"""The trainers' settings: how long and how fast, how sparse, and how dead latents are revived.

Each class is a group of settings (see `plugin.signature`) that several trainers share.
"""

from __future__ import annotations

from dataclasses import dataclass

from saebench_canon.errors import CanonError


@dataclass(frozen=True)
class Schedule:
    """Initial norm, length and learning rate; `warm_up` and `decay` are shares of the steps."""

    tokens: int = 2_000_000
    batch_size: int = 1024
    lr: float = 1e-3
    warm_up: float = 0.02
    decay: float = 0.3
    decoder_norm: float = 0.1  # of each row at the start

    def __post_init__(self) -> None:
        for name in ("warm_up", "decay"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise CanonError(f"{name} must be a share of the steps from 0 to 1, got {share}")
        for name in ("batch_size", "lr"):
            if not getattr(self, name) > 0:
                raise CanonError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.steps < 1:
            raise CanonError(
                f"{self.tokens} tokens are less than one batch of {self.batch_size}",
                hint="Raise tokens or lower batch_size.",
            )

    @property
    def steps(self) -> int:
        """The number of steps: only full batches count."""
        return self.tokens // self.batch_size

    def rate(self, step: int) -> float:
        """The learning rate: a linear rise, a constant, and a linear fall to 0 at the end."""
        fall = (self.steps - step) / max(self.decay * self.steps, 1)
        return self.lr * min(self.risen(step, self.warm_up), fall)

    def risen(self, step: int, share: float) -> float:
        """The factor, from 0 to 1, of a value that rises linearly over this share of the steps."""
        return min((step + 1) / max(share * self.steps, 1), 1.0)


@dataclass(frozen=True)
class Revival:
    """The auxiliary loss: the `aux_k` largest dead latents learn to explain the remaining error."""

    aux_coefficient: float = 1 / 32
    aux_k: int = 512
    dead_after: int = 100_000  # tokens without firing


@dataclass(frozen=True)
class TopK:
    """The k largest codes of each token are selected."""

    k: int = 32

    def check(self, width: int) -> None:
        """Raises CanonError for a k below 1 or above the width."""
        if not 0 < self.k <= width:
            raise CanonError(
                f"k must be between 1 and the width, {width}, got {self.k}",
            )


@dataclass(frozen=True)
class BatchTopK(TopK):
    """The n·k largest codes of a batch of n are selected; at inference a threshold selects."""

    threshold_share: float = 0.05  # of the training tokens, held out to set the threshold (eq. 8)


@dataclass(frozen=True)
class Jump:
    """The initial thresholds, and the distance from a threshold within which a code moves it."""

    bandwidth: float = 0.05
    threshold: float = 0.01
