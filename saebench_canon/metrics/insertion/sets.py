"""Which latents to add: those that an SAE lacks, and that a witness finds too."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from saebench_canon.kernels.cosine import max_cosine, tied
from saebench_canon.kernels.nnomp import pursue
from saebench_canon.metrics.comparison.settings import Cosines
from saebench_canon.metrics.shared.dictionary import Dictionary
from saebench_canon.metrics.shared.fitted import fitted


def chosen_by_witness(
    small: Dictionary,
    large: Dictionary,
    witnesses: Sequence[Dictionary],
    atoms: int,
    cosines: Cosines,
) -> list[Tensor]:
    """The numbers of the larger's latents to add, for each witness."""
    none = large.latents[:0]
    if len(large) == 0 or len(small) == 0:
        return [none for _ in witnesses]
    lacks = ~_found(large, small, cosines.threshold)
    left = fitted(pursue(large.rows, small.rows, count=atoms), cosines.gate).residual
    lacks &= left > cosines.residual
    return [
        large.latents[lacks & _found(large, witness, cosines.threshold)] if len(witness) else none
        for witness in witnesses
    ]


def _found(rows: Dictionary, others: Dictionary, threshold: float) -> Tensor:
    """Which representatives have a cosine of θ or more with a live row, [n] bool."""
    cosine, _ = max_cosine(rows.rows, others.every)
    return tied(cosine) >= threshold
