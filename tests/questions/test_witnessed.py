"""Rules B and C where a width has a single seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_up_family import THETA, family, relation

from saebench_canon.questions.intervals import wilson
from saebench_canon.questions.relations import Family
from saebench_canon.questions.witnessed import sums_witnessed, witnessed


@pytest.mark.parametrize("seed", range(5))
def test_they_agree_with_plain_loops(seed: int) -> None:
    saes = family(1, 2, seed=seed, latents=30)
    larger, smaller, witness = "l0", "s0", "l1"

    def seen(of: str) -> list[int]:
        cosine = saes.relations[of, witness].cosine
        return [i for i in range(len(cosine)) if cosine[i] >= THETA]

    def lacking(of: str, at: str) -> float:
        return sum(bool(saes.missing(of, at)[i]) for i in seen(of)) / len(seen(of))

    x, y = lacking(larger, smaller), lacking(smaller, larger)
    low, high = wilson(x, len(seen(larger))).lo, wilson(y, len(seen(smaller))).hi
    result = witnessed(saes, smaller, larger, witness)
    assert (result.missing, result.missing_back) == pytest.approx((x, y))
    assert (result.latents, result.latents_back) == (len(seen(larger)), len(seen(smaller)))
    assert result.above.lo == pytest.approx(x - y - math.sqrt((x - low) ** 2 + (high - y) ** 2))
    unseen = [saes.relations[larger, smaller].cosine[i] < THETA for i in seen(larger)]
    assert result.not_found == pytest.approx(sum(unseen) / len(unseen))
    sums = [bool(saes.sums(larger, smaller, [witness])[i]) for i in seen(larger)]
    assert sums_witnessed(saes, smaller, larger, witness) == wilson(
        sum(sums) / len(sums), len(sums)
    )


def test_equal_saes_lack_nothing_of_one_another() -> None:
    row = relation(np.full(40, 0.9))
    pairs = [("a", "b"), ("b", "a"), ("a", "w"), ("b", "w")]
    result = witnessed(Family(dict.fromkeys(pairs, row), THETA), "a", "b", "w")
    assert result.above.value == 0
    assert result.above.lo < 0


def test_a_witness_that_finds_nothing_leaves_no_share() -> None:
    row = relation(np.full(40, 0.1))
    pairs = [("a", "b"), ("b", "a"), ("a", "w"), ("b", "w")]
    result = witnessed(Family(dict.fromkeys(pairs, row), THETA), "a", "b", "w")
    assert math.isnan(result.missing)
    assert (result.latents, result.latents_back) == (0, 0)
