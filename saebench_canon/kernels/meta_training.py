"""How a meta-SAE is trained, in plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """How a meta-SAE is trained."""

    width: int
    k: int
    steps: int
    batch: int
    lr: float
    dead_after: int = 100  # steps without a code after which the aux loss revives a latent
    aux_k: int = 512
    aux_weight: float = 1 / 32
    betas: tuple[float, float] = (0.9, 0.999)  # of Adam
    unit_norm: bool = True  # decoder rows stay at unit norm; without it they only start there
    start_norm: float = 1.0  # of encoder and decoder rows; other norms need `rescaled`
    rescaled: bool = False  # free rows whose norms scale the codes, and a bias of each code
    replacement: bool = False  # a batch is drawn with replacement, also where it exceeds the rows
