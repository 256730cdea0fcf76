"""Rule D: the small latents that are sums of larger ones, and the part that they share."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_family import THETA, family, names_of, relation

from saebench_canon.questions.intervals import jackknife, wilson
from saebench_canon.questions.merging import Hub, hub_of, merging
from saebench_canon.questions.relations import Family


@pytest.mark.parametrize("small", [1, 2, 3])
def test_it_agrees_with_plain_loops(small: int) -> None:
    smalls, larges = names_of("s", small), names_of("l", 3)
    saes = family(small, 3, seed=small)
    by_small = {}
    for one in smalls:
        peers = [name for name in smalls if name != one]
        n, count = len(saes.relations[one, "l0"].cosine), 0
        for other in larges:
            row = saes.relations[one, other]
            for i in range(n):
                cosines = [saes.relations[one, peer].cosine[i] for peer in peers]
                squares = [cosine**2 for cosine in cosines if cosine >= THETA]
                level = max([0.6, *([sum(squares) / len(squares) - 0.1] if squares else [])])
                count += bool(
                    not row.gated[i]
                    and row.explained[i] > level - 1e-6
                    and row.explained[i] - row.first[i] > 0.2 - 1e-6
                )
        by_small[one] = count / n / len(larges)
    share = sum(by_small.values()) / small
    latents = sum(len(saes.relations[one, "l0"].cosine) for one in smalls) / small
    result = merging(saes, smalls, larges)
    assert result.by_small == pytest.approx(by_small)
    assert result.share.value == pytest.approx(share)
    rest = [(share * small - value) / (small - 1) for value in by_small.values() if small > 1]
    expected = jackknife(share, rest, latents) if rest else wilson(share, latents)
    assert result.share.lo == pytest.approx(expected.lo)
    assert result.share.hi == pytest.approx(expected.hi)


def test_the_level_is_not_the_raised_one() -> None:
    row = relation([0.1, 0.1], [0.7, 0.2])
    raised = type(row)(row.cosine, row.first, row.explained, row.gated, least=0.8)
    assert merging(Family({("s0", "l0"): raised}, THETA), ["s0"], ["l0"]).share.value == 0.5


def test_the_hub_is_the_latent_of_most_sums() -> None:
    sums = np.array([True, True, False, True])
    assert hub_of(sums, [[4, 7], [7, 2], [2, 4], [7, 5, 3]]) == Hub(7, 1.0, 3)
    assert hub_of(sums, [[4, 7], [1, 2], [7, 7], [8, 9]]) == Hub(1, 1 / 3, 3)  # first of equals
    assert hub_of(~sums | sums, [[1, 2]] * 4) == Hub(1, 1.0, 4)
    assert hub_of(sums & ~sums, [[1, 2]] * 4) is None


def test_only_pairs_with_sums_have_a_hub() -> None:
    saes = Family({("s0", "l0"): relation([0.1], 0.9), ("s0", "l1"): relation([0.1], 0.1)}, THETA)
    parts = {("s0", "l0"): [[3, 5]], ("s0", "l1"): [[2, 4]]}
    result = merging(saes, ["s0"], ["l0", "l1"], parts=parts)
    assert result.hubs == {("s0", "l0"): Hub(3, 1.0, 1)}
    assert merging(saes, ["s0"], ["l0", "l1"]).hubs == {}
