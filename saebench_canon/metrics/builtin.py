"""The built-in metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from saebench_canon.plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from saebench_canon.plugin.metric import Metric


@hookimpl
def canon_metrics() -> Iterable[Metric]:
    """Fidelity, completeness, atomicity, uniqueness, and truth where it is known."""
    from saebench_canon.metrics.comparison.metric import comparison
    from saebench_canon.metrics.composition.metric import composition
    from saebench_canon.metrics.fidelity.metric import fidelity
    from saebench_canon.metrics.geometry.metric import geometry
    from saebench_canon.metrics.insertion.metric import insertion
    from saebench_canon.metrics.meta_ladder.metric import meta_ladder
    from saebench_canon.metrics.meta_replace.metric import meta_replace
    from saebench_canon.metrics.meta_sae.metric import meta_sae
    from saebench_canon.metrics.seed_matching.metric import seed_matching
    from saebench_canon.metrics.stitching.metric import stitching
    from saebench_canon.metrics.stitching_loss.metric import stitching_loss
    from saebench_canon.metrics.truth.metric import truth

    return [
        fidelity, stitching, stitching_loss, meta_sae, composition, meta_replace, meta_ladder,
        seed_matching, geometry, comparison, insertion, truth,
    ]  # fmt: skip
