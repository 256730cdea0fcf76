"""The intervals of the rules hold the truth about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from interval_coverage import KINDS, World, covered


def test_they_hold_it_with_three_seeds_and_shocks() -> None:
    hit = covered(World(100, 0.5), 3, 200)
    assert min(hit[kind] for kind in KINDS) >= 0.90


def test_the_truth_is_what_many_seeds_and_features_show() -> None:
    world, generator = World(4000, 0.5), np.random.default_rng(0)
    effects = generator.standard_normal(world.features)
    large = np.stack([world.finds(world.large, effects, generator) for _ in range(400)])
    small = np.stack([world.finds(world.small, effects, generator) for _ in range(400)])
    often = large.mean(axis=0)
    share = float((often**2 * (1 - small.mean(axis=0))).sum() / (often**2).sum())
    assert share * (1 - world.spanned) == pytest.approx(world.truth[0], abs=0.01)
