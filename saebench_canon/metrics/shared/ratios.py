"""Ratios over documents as values of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.plugin.metric import Value

if TYPE_CHECKING:
    from saebench_canon.kernels.resampling import Ratio


def of_documents(estimate: Ratio) -> Value:
    """The ratio with its standard error over documents."""
    return Value(estimate.value, estimate.stderr, estimate.documents, "document")


def complement(estimate: Ratio) -> Value:
    """One minus the ratio."""
    return Value(1 - estimate.value, estimate.stderr, estimate.documents, "document")
