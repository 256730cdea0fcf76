"""What the trainers' settings are: how long and how fast, how sparse, and what becomes of the dead.

Each is a group of settings (see `plugin.signature`), said once for all trainers that have it.
"""

from __future__ import annotations

from dataclasses import dataclass

from saebench_canon.errors import CanonError


@dataclass(frozen=True)
class Schedule:
    """From where, how long and how fast: `warm_up` and `decay` are shares of the steps."""

    tokens: int = 2_000_000
    batch_size: int = 1024
    lr: float = 1e-3
    warm_up: float = 0.02
    decay: float = 0.3
    decoder_norm: float = 0.1  # of each row at the start

    def __post_init__(self) -> None:
        for name in ("warm_up", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise CanonError(f"{name} is {getattr(self, name)}, not a share of the steps")
        for name in ("batch_size", "lr"):
            if not getattr(self, name) > 0:
                raise CanonError(f"{name} is {getattr(self, name)}, not above 0")
        if self.steps < 1:
            raise CanonError(
                f"{self.tokens} tokens are less than one batch of {self.batch_size}",
                hint="Raise tokens or lower batch_size.",
            )

    @property
    def steps(self) -> int:
        """Whole batches only."""
        return self.tokens // self.batch_size

    def rate(self, step: int) -> float:
        """The learning rate: up linearly, constant, and linearly to 0 at the end."""
        down = (self.steps - step) / max(self.decay * self.steps, 1)
        return self.lr * min(self.risen(step, self.warm_up), down)

    def risen(self, step: int, share: float) -> float:
        """How far what rises linearly over this share of the steps has risen, at most 1."""
        return min((step + 1) / max(share * self.steps, 1), 1.0)


@dataclass(frozen=True)
class Revival:
    """The auxiliary loss: the best `aux_k` dead latents explain the error that the others leave."""

    aux_coefficient: float = 1 / 32
    aux_k: int = 512
    dead_after: int = 100_000  # tokens without firing


@dataclass(frozen=True)
class TopK:
    """The k largest codes of each token are kept."""

    k: int = 32

    def check(self, width: int) -> None:
        """Refuse more codes than there are latents, and none."""
        if not 0 < self.k <= width:
            raise CanonError(
                f"k is {self.k} and the SAE has {width} latents",
                hint="k is between 1 and the width.",
            )


@dataclass(frozen=True)
class BatchTopK(TopK):
    """The n·k largest codes of a batch of n; at inference a threshold has their place."""

    threshold_share: float = 0.05  # of the training tokens, held out to set the threshold (eq. 8)


@dataclass(frozen=True)
class Jump:
    """Where the learnt thresholds start, and how near to them a code moves them."""

    bandwidth: float = 0.05
    threshold: float = 0.01
