"""The intervals of the rules hold the truth about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from interval_coverage import AGAIN, KINDS, World, covered


def test_they_hold_it_with_three_seeds_and_shocks() -> None:
    hit = covered(World(100, 0.5), 3, 200)
    there = [kind for kind in KINDS if kind in hit]
    assert there == ["M", "D", "jackknife", "found again"]  # the others take four seeds
    assert min(hit[kind] for kind in there) >= 0.90


def test_graded_shares_hold_it_with_five_seeds() -> None:
    hit = covered(World(100, 0.5), 5, 200)
    assert min(hit[kind] for kind in AGAIN) >= 0.90


def test_the_truth_is_what_many_seeds_and_features_show() -> None:
    world, generator = World(4000, 0.5), np.random.default_rng(0)
    effects = generator.standard_normal(world.features)
    large = np.stack([world.finds(world.large, effects, generator) for _ in range(400)])
    small = np.stack([world.finds(world.small, effects, generator) for _ in range(400)])
    often = large.mean(axis=0)
    share = float((often**2 * (1 - small.mean(axis=0))).sum() / (often**2).sum())
    assert share * (1 - world.spanned) == pytest.approx(world.truth[0], abs=0.01)
    again = [float((often**2).sum() / often.sum()), float((often**3).sum() / often.sum())]
    assert again == pytest.approx(list(world.again(effects)[:2]), abs=0.01)
    assert sum(world.again(effects)[1:]) == pytest.approx(1)
