"""Ratios of totals over documents, with the delta method's standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ratio:
    """A ratio of totals, its standard error over documents (None for one) and their number."""

    value: float
    stderr: float | None
    documents: int


def ratio(numerator: Tensor, denominator: Tensor) -> Ratio:
    """Σ numerator / Σ denominator of per-document sums [docs], documents drawn independently.

    The standard error is the delta method's, `√(G/(G−1) Σ (a_i − R b_i)²) / Σ b_i` for G documents.
    """
    a, b = numerator.double(), denominator.double()
    total = float(b.sum())
    value = float(a.sum()) / total
    count = len(a)
    if count < 2:
        return Ratio(value, None, count)
    spread = float(((a - value * b) ** 2).sum())
    return Ratio(value, math.sqrt(count / (count - 1) * spread) / abs(total), count)


def reaches_zero(estimate: Ratio, *, level: float = 0.95) -> bool:
    """Whether the lower end of the Student's t interval, or without one the ratio, is 0 or less."""
    if estimate.stderr is None:
        return estimate.value <= 0
    from scipy.special import stdtrit

    half = float(stdtrit(estimate.documents - 1, (1 + level) / 2)) * estimate.stderr
    return estimate.value - half <= 0


def documents(doc: Tensor) -> tuple[Tensor, int]:
    """Each token's document counted from 0 [n], and the number of documents."""
    names, index = torch.unique(doc, return_inverse=True)
    return index, len(names)
