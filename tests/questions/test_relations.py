"""Found, missing and sums, latent by latent."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_up_family import THETA, family, names_of, relation

from saebench_canon.questions.relations import Family, Relation


def one(cosine: float, first: float, explained: float, gated: bool) -> Relation:
    return Relation(np.array([cosine]), np.array([first]), np.array([explained]), np.array([gated]))


@pytest.mark.parametrize(
    ("cosine", "first", "explained", "gated", "expected"),
    [
        (0.7, 0.49, 0.5, False, False),  # found
        (0.69, 0.4, 0.5, False, True),
        (0.69, 0.4, 0.75, False, False),  # a sum leaves a quarter over
        (0.69, 0.4, 0.9, True, True),  # a gated fit counts its first row only
        (0.2, 0.8, 0.9, True, False),  # and that one is enough here
    ],
)
def test_missing_is_neither_found_nor_a_sum(
    cosine: float, first: float, explained: float, gated: bool, expected: bool
) -> None:
    assert one(cosine, first, explained, gated).missing(THETA).tolist() == [expected]


@pytest.mark.parametrize(
    ("first", "explained", "gated", "ceiling", "expected"),
    [
        (0.4, 0.6, False, math.nan, True),  # both limits are reached
        (0.41, 0.6, False, math.nan, False),  # the first row alone explains most of it
        (0.3, 0.59, False, math.nan, False),
        (0.3, 0.9, True, math.nan, False),
        (0.3, 0.7, False, 0.71, False),  # a twin explains more
        (0.3, 0.7, False, 0.7, True),
        (0.3, 0.59, False, 0.2, False),  # a low ceiling lowers nothing
        (0.4 + 5e-7, 0.6, False, 0.6 + 5e-7, True),  # rounding
    ],
)
def test_a_sum_needs_several_parts_and_is_as_near_as_a_twin(
    first: float, explained: float, gated: bool, ceiling: float, expected: bool
) -> None:
    sums = one(0.5, first, explained, gated).sums(0.6, np.array([ceiling]))
    assert sums.tolist() == [expected]


def test_a_twins_square_is_the_mean_over_the_peers_that_find_the_latent() -> None:
    relations = {
        ("a", "b"): relation([0.8, 0.5, 0.9]),
        ("a", "c"): relation([0.6, 0.5, 0.7]),
    }
    square = Family(relations, THETA).twin_square("a", ["b", "c"])
    np.testing.assert_allclose(square, [0.64, math.nan, (0.81 + 0.49) / 2])


def test_sums_are_as_near_as_twins_less_the_slack() -> None:
    relations = {
        ("a", "b"): relation([0.4, 0.4, 0.4], [0.72, 0.70, 0.62]),
        ("a", "c"): relation([0.9, 0.9, 0.1]),
    }
    saes = Family(relations, THETA)
    assert saes.sums("a", "b", ["c"]).tolist() == [True, False, True]  # .81 - .10
    assert saes.sums("a", "b", []).tolist() == [True, True, True]
    assert saes.sums("a", "b", [], least=0.71).tolist() == [True, False, False]


@pytest.mark.parametrize("seed", range(5))
def test_they_agree_with_plain_loops(seed: int) -> None:
    saes = family(2, 3, seed=seed)
    for (of, inside), row in saes.relations.items():
        peers = [name for name in names_of("l", 3) if name not in (of, inside)]
        found, missing, sums = [], [], []
        for i in range(len(row.cosine)):
            found.append(row.cosine[i] >= THETA)
            left_over = 1 - (row.first[i] if row.gated[i] else row.explained[i])
            missing.append(not found[i] and left_over > 0.25)
            cosines = [saes.relations[of, peer].cosine[i] for peer in peers]
            squares = [cosine**2 for cosine in cosines if cosine >= THETA]
            level = max([row.least, *([sum(squares) / len(squares) - 0.1] if squares else [])])
            several = row.explained[i] - row.first[i] > 0.2 - 1e-6
            sums.append(not row.gated[i] and several and row.explained[i] > level - 1e-6)
        assert saes.found(of, inside).tolist() == found
        assert saes.missing(of, inside).tolist() == missing
        assert saes.sums(of, inside, peers).tolist() == sums
