"""What rules A and C share, against plain loops and on relations whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from made_up_family import THETA, family, names_of, relation
from scipy import stats

from saebench_canon.errors import CanonError
from saebench_canon.questions.intervals import newcombe, wilson
from saebench_canon.questions.relations import Family, Relation
from saebench_canon.questions.weighted import Weighted, missing, not_found, sums

Latent = Callable[[str, str, list[str], int], bool]


def plain(saes: Family, small: list[str], large: list[str], passes: Latent) -> dict[str, float]:
    """M, B and D with their intervals, by METRICS.md's formulas and one latent after the other."""

    def has(of: str, inside: str, i: int) -> bool:
        return bool(saes.relations[of, inside].cosine[i] >= THETA)

    shares, floors, variances, own_variances, sizes = [], [], [], [], []
    by_small: dict[str, list[float]] = {name: [] for name in small}
    by_large: dict[str, list[float]] = {name: [] for name in large}
    for t in large:
        peers = [name for name in large if name != t]
        n = len(saes.relations[t, peers[0]].cosine)
        p = [sum(has(t, q, i) for q in peers) / len(peers) for i in range(n)]
        m = [sum(passes(t, s, peers, i) for s in small) / len(small) for i in range(n)]
        pairs = [(a, b) for a in peers for b in peers if a != b]

        def at_peer(q: str, i: int, t: str = t, peers: list[str] = peers) -> bool:
            return passes(t, q, [name for name in peers if name != q], i)

        f = [sum(has(t, a, i) and at_peer(b, i) for a, b in pairs) / len(pairs) for i in range(n)]
        total = sum(p)
        share, floor = sum(p[i] * m[i] for i in range(n)) / total, sum(f) / total
        shares.append(share)
        floors.append(floor)
        sizes.append(n)
        above = sum((p[i] * m[i] - f[i] - (share - floor) * p[i]) ** 2 for i in range(n))
        own = sum((p[i] * m[i] - share * p[i]) ** 2 for i in range(n))
        variances.append(n / (n - 1) * above / total**2)
        own_variances.append(n / (n - 1) * own / total**2)
        for s in small:
            by_small[s].append(sum(p[i] * passes(t, s, peers, i) for i in range(n)) / total)
        for q in peers:
            others = [name for name in peers if name != q]
            weights = [sum(has(t, a, i) for a in others) / len(others) for i in range(n)]
            weighted = sum(weights[i] * at_peer(q, i) for i in range(n))
            by_large[q].append(weighted / sum(weights) if sum(weights) else 0.0)

    def between(values: Mapping[str, list[float]]) -> float:
        means = [sum(row) / len(row) for row in values.values()]
        middle = sum(means) / len(means)
        return sum((mean - middle) ** 2 for mean in means) / (len(means) - 1) / len(means)

    M, B, v, own = (sum(row) / len(large) for row in (shares, floors, variances, own_variances))
    a, n = (between(by_small) if len(small) > 1 else 0.0), sum(sizes) / len(sizes)
    b, spread = between(by_large), (a**2 / (len(small) - 1) if len(small) > 1 else 0.0)
    df = (v + a + b) ** 2 / (spread + b**2 / (len(large) - 1) + v**2 / (n - 1))
    own_df = (own + a) ** 2 / (spread + own**2 / (n - 1))
    half = stats.t.ppf(0.975, df) * math.sqrt(v + a + b)
    own_half = stats.t.ppf(0.975, own_df) * math.sqrt(own + a)
    return {"M": M, "B": B, "lo": M - B - half, "hi": M - B + half, "df": df,
            "own lo": M - own_half, "own hi": M + own_half}  # fmt: skip


def numbers(weighted: Weighted | None) -> dict[str, float]:
    assert weighted is not None
    return {"M": weighted.share.value, "B": weighted.floor, "lo": weighted.above.lo,
            "hi": weighted.above.hi, "df": weighted.above.df, "own lo": weighted.share.lo,
            "own hi": weighted.share.hi}  # fmt: skip


@pytest.mark.parametrize("small", [1, 2, 4])
@pytest.mark.parametrize("large", [3, 5])
def test_they_agree_with_plain_loops(small: int, large: int) -> None:
    smalls, larges = names_of("s", small), names_of("l", large)
    for seed in range(4):
        saes = family(small, large, seed=seed)

        def is_missing(of: str, at: str, _: list[str], i: int, saes: Family = saes) -> bool:
            return bool(saes.missing(of, at)[i])

        def is_no_twin(of: str, at: str, _: list[str], i: int, saes: Family = saes) -> bool:
            return bool(saes.relations[of, at].cosine[i] < THETA)

        def is_sum(of: str, at: str, peers: list[str], i: int, saes: Family = saes) -> bool:
            return bool(saes.sums(of, at, peers)[i])

        for share, passes in ((missing, is_missing), (not_found, is_no_twin), (sums, is_sum)):
            expected = plain(saes, smalls, larges, passes)
            assert numbers(share(saes, smalls, larges)) == pytest.approx(expected, abs=1e-12)


def alike(at_small: Relation, at_large: Relation, *, small: int = 3, large: int = 3) -> Family:
    """Larger SAEs that are alike to all the smaller ones, and alike to one another."""
    larges = names_of("l", large)
    relations = {(one, other): at_large for one in larges for other in larges if one != other}
    relations |= {(one, other): at_small for one in larges for other in names_of("s", small)}
    return Family(relations, THETA)


SMALL, LARGE = names_of("s", 3), names_of("l", 3)
EIGHTY = np.full(80, 0.9)


def test_where_nothing_is_missing_there_is_nothing_above_the_floor() -> None:
    found = missing(alike(relation(EIGHTY), relation(EIGHTY)), SMALL, LARGE)
    assert found is not None
    assert (found.share.value, found.floor, found.above.value) == (0, 0, 0)
    assert found.share == wilson(0, 80)
    assert (found.above.lo, found.above.hi) == (-wilson(0, 80).hi, wilson(0, 80).hi)


def test_where_all_is_missing_the_interval_is_newcombes() -> None:
    found = missing(alike(relation(EIGHTY * 0), relation(EIGHTY)), SMALL, LARGE)
    assert found is not None
    assert found.above == newcombe(wilson(1, 80), wilson(0, 80))
    assert found.above.lo > 0.9


def test_a_quarter_is_missing() -> None:
    cosine = np.where(np.arange(80) % 4 == 0, 0.2, 0.9)
    found = missing(alike(relation(cosine), relation(EIGHTY)), SMALL, LARGE)
    assert found is not None
    assert (found.share.value, found.floor) == (0.25, 0)
    assert found.above.lo > 0.05
    assert found.by_small == {"s0": 0.25, "s1": 0.25, "s2": 0.25}


def test_what_sums_span_is_not_found_but_not_missing() -> None:
    saes = alike(relation(EIGHTY * 0.5, 0.8), relation(EIGHTY))
    found, absent = missing(saes, SMALL, LARGE), not_found(saes, SMALL, LARGE)
    assert found is not None
    assert absent is not None
    assert (found.share.value, absent.share.value) == (0, 1)


def test_what_no_seed_finds_again_cannot_be_measured() -> None:
    saes = alike(relation(EIGHTY), relation(EIGHTY * 0.5))
    assert missing(saes, SMALL, LARGE) is None
    assert sums(saes, SMALL, LARGE) is None


def test_two_larger_seeds_have_no_floor() -> None:
    with pytest.raises(CanonError, match="3 seeds of the larger SAE, got 2"):
        missing(family(2, 2, seed=0), names_of("s", 2), names_of("l", 2))


def test_a_latent_that_one_seed_of_two_finds_counts_half() -> None:
    saes = alike(relation([0.9, 0.1]), relation([0.9, 0.9]))
    partly = {
        pair: relation([0.9, 0.1]) if pair in {("l0", "l1"), ("l1", "l2"), ("l2", "l0")} else row
        for pair, row in saes.relations.items()
    }
    found = missing(Family(partly, THETA), SMALL, LARGE)
    assert found is not None
    assert found.share.value == pytest.approx(0.5 / 1.5)
    assert found.floor == pytest.approx(0.5 / 1.5)  # found in one seed and missing in the other


def test_the_order_of_latents_and_seeds_changes_nothing() -> None:
    saes = family(3, 4, seed=7)
    generator = np.random.default_rng(1)
    orders = {of: generator.permutation(len(row.cosine)) for (of, _), row in saes.relations.items()}
    mixed = {
        (of, at): replace(row, cosine=row.cosine[orders[of]], first=row.first[orders[of]],
                          explained=row.explained[orders[of]], gated=row.gated[orders[of]])
        for (of, at), row in saes.relations.items()
    }  # fmt: skip
    for share in (missing, not_found, sums):
        before = numbers(share(saes, names_of("s", 3), names_of("l", 4)))
        after = share(Family(mixed, THETA), ["s2", "s0", "s1"], ["l3", "l0", "l2", "l1"])
        assert numbers(after) == pytest.approx(before, abs=1e-12)


def test_a_seed_that_lacks_what_others_find_and_its_duplicate_raise_the_floor_alone() -> None:
    latents = np.arange(80)
    good, poor = relation(EIGHTY), relation(np.where(latents < 20, 0.1, 0.9))
    small = relation(np.where(latents % 4 == 0, 0.1, 0.9))
    saes = dict(alike(small, good, large=5).relations)
    for of in names_of("l", 3):
        saes |= {(of, "l3"): poor, (of, "l4"): poor}
    counts = [missing(Family(saes, THETA), SMALL, names_of("l", count)) for count in (3, 4, 5)]
    shares, floors = [], []
    for weighted in counts:
        assert weighted is not None
        shares.append(weighted.share.value)
        floors.append(weighted.floor)
    assert shares == pytest.approx([0.25] * 3)
    assert floors[0] == 0
    assert min(floors[1:]) > 0.04


def test_one_small_seed_leaves_its_variance_out() -> None:
    found = missing(family(1, 3, seed=3), ["s0"], LARGE)
    assert found is not None
    assert [part.seeds for part in found.above.components] == [False, True]
    assert [part.seeds for part in found.share.components] == [False]


def test_the_least_found_again_leaves_one_seed_out() -> None:
    saes = alike(relation(EIGHTY), relation(EIGHTY))
    apart = {
        pair: relation(EIGHTY * 0) if "l0" in pair and pair != ("l0", "l1") else row
        for pair, row in saes.relations.items()
    }
    found = not_found(Family(apart | {("l2", "l0"): relation(EIGHTY)}, THETA), SMALL, LARGE)
    assert found is not None
    assert found.found_again == pytest.approx(4 / 6)  # l0 → l2 and l1 → l0 are lost
    assert found.found_again_least == pytest.approx(1 / 2)
