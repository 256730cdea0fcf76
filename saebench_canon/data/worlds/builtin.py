"""The built-in worlds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saebench_canon.plugin.world import World


def worlds() -> Iterable[type[World]]:
    """Worlds of which each can be the value of `synthetic`."""
    from saebench_canon.data.worlds import attributes, firing, shared_directions, synth_sae_bench

    return [
        firing.Independent, firing.Correlated, firing.Pairs, firing.MutuallyExclusive,
        firing.Hierarchy, firing.Dense, firing.Superposition,
        attributes.ThreeFeatures, attributes.ColouredShapes, attributes.Product,
        shared_directions.CommonDirection, shared_directions.Sinks, synth_sae_bench.SynthSaeBench,
    ]  # fmt: skip
