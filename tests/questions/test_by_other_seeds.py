"""How often other seeds find a latent, on families whose truth is known."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_family import THETA, relation

from saebench_canon.errors import CanonError
from saebench_canon.questions.by_other_seeds import found_again
from saebench_canon.questions.relations import Family


def family(found: dict[tuple[str, str], list[bool]]) -> Family:
    """Latents of one SAE in another: found, or not."""
    cosines = {pair: np.where(each, 0.9, 0.3) for pair, each in found.items()}
    return Family({pair: relation(each) for pair, each in cosines.items()}, THETA)


def drawn(seeds: int, latents: int, share: float, seed: int) -> tuple[Family, list[str]]:
    generator = np.random.default_rng(seed)
    saes = [f"s{number}" for number in range(seeds)]
    found = {pair: list(generator.random(latents) < share) for pair in permutations(saes, 2)}
    return family(found), saes


@given(st.integers(3, 6), st.integers(1, 30), st.floats(0, 1), st.integers(0, 99))
def test_the_shares_are_those_of_all_pairs_of_others(
    seeds: int, latents: int, share: float, seed: int
) -> None:
    related, saes = drawn(seeds, latents, share, seed)
    result = found_again(related, saes)
    for row, of in zip(result.by_seed, saes, strict=True):
        others = [sae for sae in saes if sae != of]
        pairs = [(related.found(of, p), related.found(of, q)) for p, q in combinations(others, 2)]
        two = float(np.mean([np.mean(p & q) for p, q in pairs]))
        none = float(np.mean([np.mean(~p & ~q) for p, q in pairs]))
        assert row.tolist() == pytest.approx([two, 1 - two - none, none], abs=1e-12)
    two, one, _ = result.shares
    assert result.shared.value == pytest.approx(two + one / 2, abs=1e-12)


def test_more_seeds_estimate_the_same() -> None:
    means = []
    for seeds in (3, 5, 10):
        results = [found_again(*drawn(seeds, 400, 0.8, seed)) for seed in range(10)]
        means.append(np.mean([result.shares for result in results], axis=0))
    for shares in means:
        assert shares == pytest.approx([0.64, 0.32, 0.04], abs=0.01)


def test_two_seeds_have_no_third() -> None:
    found = {("a", "b"): [True, True, False, False], ("b", "a"): [True, False, False, False]}
    result = found_again(family(found), ["a", "b"])
    assert result.by_seed.tolist() == [[0.5], [0.25]]
    assert result.shared.value == 0.375
    assert not result.intervals


def test_there_are_intervals_from_four_seeds_on_and_they_stay_between_0_and_1() -> None:
    assert not found_again(*drawn(3, 50, 0.97, 0)).intervals
    for interval in found_again(*drawn(4, 50, 0.97, 0)).intervals:
        assert 0 <= interval.lo <= interval.value <= interval.hi <= 1


def test_one_seed_is_refused() -> None:
    with pytest.raises(CanonError, match="there are 1 SAEs"):
        found_again(Family({}, THETA), ["a"])
