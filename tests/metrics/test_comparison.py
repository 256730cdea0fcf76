"""Comparison: what each latent of two SAEs is in the other one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from measured import value
from scipy.optimize import nnls
from torch import Tensor
from torch.nn.functional import normalize

from saebench_canon.kernels.codes import Codes
from saebench_canon.metrics.comparison.metric import comparison
from saebench_canon.plugin.metric import Measurement, Undefined
from saebench_canon.saes.fold import fold


def sae(rows: Tensor) -> Any:
    rows = rows.float()
    return fold(W_enc=rows.T, W_dec=rows, b_dec=torch.zeros(rows.shape[1]), b_enc=None)


def compared(small: Tensor, large: Tensor, **settings: Any) -> Measurement:
    found = comparison.measure(
        sae(small), sae(large), None, None, 0, **{**comparison.settings, **settings}
    )
    assert isinstance(found, Measurement)
    return found


def random_rows(count: int, d: int, seed: int) -> Tensor:
    return normalize(torch.randn(count, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def pursuit(row: np.ndarray, atoms: np.ndarray, count: int) -> tuple[list[float], float]:
    """Orthogonal matching pursuit with weights ≥ 0, written out: shares explained, Σ weight²."""
    chosen: list[int] = []
    weights = np.zeros(0)
    shares: list[float] = []
    residual = row.copy()
    for _ in range(count):
        left = [atom for atom in range(len(atoms)) if atom not in chosen]
        cosines = [float(residual @ atoms[atom]) for atom in left]
        if not left or max(cosines) <= 1e-6:
            break
        chosen.append(left[int(np.argmax(cosines))])
        weights = nnls(atoms[chosen].T, row)[0]
        residual = row - weights @ atoms[chosen]
        shares.append(1 - float(residual @ residual))
    shares += [shares[-1] if shares else 0.0] * (count - len(shares))
    return shares, float(weights @ weights)


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_tables_are_those_of_plain_loops(seed: int) -> None:
    small, large = random_rows(7, 5, seed), random_rows(9, 5, seed + 5000)
    large[0] = normalize(small[0] + 0.9 * small[1], dim=0)  # no tie of the first atom
    assume(all(float((rows @ rows.T).fill_diagonal_(0).max()) < 0.94 for rows in (small, large)))
    result = compared(small, large)
    for side, rows, others in (("large", large, small), ("small", small, large)):
        table = result.tables[side].set_index("latent")
        for latent in table.index:
            row = rows[latent].double().numpy()
            cosines = [float(row @ other) for other in others.double().numpy()]
            assert table.cosine[latent] == pytest.approx(max(cosines), abs=2e-6)
            shares, squares = pursuit(row, others.double().numpy(), 4)
            assert table["first"][latent] == pytest.approx(shares[0], abs=1e-5)
            assert table.explained[latent] == pytest.approx(shares[-1], abs=1e-5)
            if abs(squares - 1.2) > 1e-4:
                assert table.gated[latent] == (squares > 1.2)


def test_found_sums_and_missing_latents_are_told_apart() -> None:
    small = torch.eye(48)[:32]
    pair = normalize(small[0] + small[1], dim=0)
    large = torch.cat([small, pair[None], torch.eye(48)[32:40]])
    result = compared(small, large)
    table = result.tables["large"].set_index("latent")
    assert (table.cosine[:32] == 1).all()
    assert table.explained[32] == pytest.approx(1)
    assert sorted(table["atoms"][32]) == [0, 1]
    assert value(result, "found_share") == pytest.approx(33 / 41)  # an equal sum is at .707
    assert value(result, "missing_share") == pytest.approx(8 / 41)
    assert value(result, "sum_share") == pytest.approx(1 / 41)
    assert value(result, "found_share_small") == 1


def test_atoms_that_cancel_explain_nothing() -> None:
    d = 64
    first, second = torch.zeros(d), torch.zeros(d)
    first[0], first[1] = 0.24, math.sqrt(1 - 0.24**2)
    second[0], second[1] = 0.20, -math.sqrt(1 - 0.20**2)
    small = torch.cat([first[None], second[None], torch.eye(d)[8:40]])
    large = torch.cat([torch.eye(d)[:1], torch.eye(d)[8:40]])
    table = compared(small, large).tables["large"].set_index("latent")
    assert table.explained[0] > 0.99  # 2.03 a + 2.19 b
    assert table.gated[0]
    result = compared(small, large)
    assert value(result, "missing_share") == pytest.approx(1 / 33)
    assert value(compared(small, large, gate=100.0), "missing_share") == 0


def test_one_of_many_duplicates_stands_for_all() -> None:
    rows = random_rows(20, 64, 1)
    doubled = torch.cat([rows, rows[:5]])
    result = compared(doubled, rows)
    assert value(result, "duplicates_small") == 5
    assert value(result, "distinct_small") == 20
    assert len(result.tables["small"]) == 20
    assert value(result, "found_share") == value(result, "found_share_small") == 1


def test_the_duplicate_with_the_most_energy_stands_for_the_others() -> None:
    rows = random_rows(6, 32, 2)
    doubled = torch.cat([rows, rows[:1]])
    dense = torch.zeros(4, 7)
    dense[0] = 1.0
    dense[1, 6] = 5.0
    small_codes = Codes.from_dense(torch.ones(4, 6))
    found = comparison.measure(
        sae(rows), sae(doubled), small_codes, Codes.from_dense(dense), 0, **comparison.settings
    )
    assert isinstance(found, Measurement)
    assert found.tables["large"]["latent"].tolist() == [1, 2, 3, 4, 5, 6]


def test_dead_latents_do_not_count() -> None:
    rows = random_rows(8, 32, 3)
    dense = torch.ones(4, 8)
    dense[:, :3] = 0
    found = comparison.measure(
        sae(rows), sae(rows), Codes.from_dense(torch.ones(4, 8)), Codes.from_dense(dense), 0,
        **comparison.settings,
    )  # fmt: skip
    assert isinstance(found, Measurement)
    assert found.tables["large"]["latent"].tolist() == [3, 4, 5, 6, 7]
    assert value(found, "found_share_small") == pytest.approx(5 / 8)


def test_centred_rows_show_what_a_common_direction_hides() -> None:
    common = torch.zeros(64)
    common[0] = 2.0
    small, large = random_rows(30, 64, 4), random_rows(30, 64, 5)
    result = compared(small + common, large + common)
    assert value(result, "found_share") == 1  # cosines of .8 by the common direction alone
    assert value(result, "found_share_centred") == 0
    assert value(result, "mean_row_norm_large") > 0.8
    assert {mark.reason for mark in result.marks} >= {"the large SAE's rows share a direction"}


def test_the_order_of_latents_changes_nothing() -> None:
    small, large = random_rows(20, 24, 6), random_rows(30, 24, 7)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    result, permuted = compared(small, large), compared(small, large[order])
    for name in result.scores:
        assert value(permuted, name) == value(result, name), name
    table = permuted.tables["large"].set_index("latent").loc[order.argsort()]
    assert table.cosine.tolist() == result.tables["large"].cosine.tolist()


def test_saes_of_one_start_meet_under_equal_numbers() -> None:
    start = random_rows(40, 64, 8)
    moved = [normalize(start + 0.05 * random_rows(40, 64, seed) * 8, dim=1) for seed in (1, 2)]
    twins = compared(moved[0], moved[1]).tables["start"]
    assert twins.same_index[0] >= 30
    assert twins.live[0] == 40
    assert not twins.sorted[0]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    others = compared(moved[0], moved[1][order]).tables["start"]
    assert others.mutual[0] == twins.mutual[0]
    assert others.same_index[0] <= 4


def test_latents_sorted_by_how_often_they_fire_are_noticed() -> None:
    rows = random_rows(40, 64, 11)
    firing = torch.rand(400, 40, generator=torch.Generator().manual_seed(0))
    falling = Codes.from_dense((firing < torch.linspace(0.5, 0.05, 40)).float())
    even = Codes.from_dense((firing < 0.3).float())
    for codes, in_order in ((falling, True), (even, False)):
        found = comparison.measure(sae(rows), sae(rows), codes, codes, 0, **comparison.settings)
        assert isinstance(found, Measurement)
        assert bool(found.tables["start"].sorted[0]) is in_order


def test_sums_of_random_rows_are_held_to_a_raised_share() -> None:
    result = compared(random_rows(400, 12, 9), random_rows(400, 12, 10))
    assert value(result, "sum_least") > 0.6
    assert value(result, "chance_residual") < 0.25  # in few dimensions sums explain anything
    wide = compared(random_rows(60, 128, 9), random_rows(60, 128, 10))
    assert value(wide, "sum_least") == 0.6
    assert value(wide, "planted_recall") > 0.9


def test_an_sae_without_live_latents_has_no_scores() -> None:
    rows = random_rows(4, 16, 0)
    dead = Codes.from_dense(torch.zeros(3, 4))
    found = comparison.measure(
        sae(rows), sae(rows), dead, Codes.from_dense(torch.ones(3, 4)), 0, **comparison.settings
    )
    assert isinstance(found, Measurement)
    assert found.scores["found_share"] == Undefined("no latent of the smaller SAE is live")
    assert found.scores["distinct_small"] == 0
