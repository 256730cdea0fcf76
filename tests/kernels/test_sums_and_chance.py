"""The rule of sums, the rows that chance makes sums of, and planted sums."""

from __future__ import annotations

import math

import brute_force as plain
import pytest
import torch
from brute_force import gaussian, rests
from hypothesis import given, settings
from hypothesis import strategies as st

from saebench_canon.kernels.composition import (
    excess,
    k_means,
    one_parent,
    parent_null,
    planted_sums,
    pursue_with_null,
    variance_explained,
)
from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.nnomp import pursue
from saebench_canon.kernels.random_generators import generator
from saebench_canon.kernels.sum_rule import Rule

# --- the rule ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("explained", "holds"),
    [
        ([0.4, 0.6], True),  # both limits are reached
        ([0.4, 0.59], False),
        ([0.41, 0.6], False),
        ([0.5, 0.9], True),
        ([0.9, 1.0], False),  # a variant of one atom
        ([0.1, 0.95, 0.2], False),  # what counts is what all atoms together explain
        ([0.1, 0.2, 0.95], True),
        ([0.4 + 4e-7, 0.6 - 4e-7], True),  # off by no more than rounding
    ],
)
def test_a_row_is_a_sum_iff_enough_is_explained_and_not_by_one_atom(
    explained: list[float], holds: bool
) -> None:
    shares = torch.tensor([explained], dtype=torch.float64)
    assert Rule().holds(shares).tolist() == [holds]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=25),
        max_size=3,
    ),
    st.sampled_from([0.0, 0.05, 0.1, 0.3, 1.0]),
)
def test_the_rule_is_raised_to_the_least_that_chance_does_not_reach(
    drawn: list[list[tuple[int, int]]], chance: float
) -> None:
    nulls = [[[min(a, b) / 20, max(a, b) / 20] for a, b in null] for null in drawn]
    rule = Rule(chance=chance, gain=0.17)
    tables = [torch.tensor(null, dtype=torch.float64) for null in nulls]
    raised = rule.raised(iter(tables))
    least = plain.least_raised(rule.least, rule.gain, chance, nulls)
    assert raised.least == pytest.approx(least, abs=1e-5)
    assert (raised.atoms, raised.gain, raised.chance) == (rule.atoms, rule.gain, rule.chance)
    for table in tables:
        assert float(raised.holds(table).double().mean()) <= chance + 1e-9


def test_rows_above_the_raised_threshold_still_count() -> None:
    chance = torch.tensor([[0.2, 0.7]] * 3 + [[0.1, 0.2]] * 17)
    raised = Rule().raised([chance])
    assert raised.least == pytest.approx(0.7, abs=1e-5)
    assert raised.holds(torch.tensor([[0.2, 0.7], [0.2, 0.701]])).tolist() == [False, True]
    assert Rule(chance=0.15).raised([chance]) == Rule(chance=0.15)
    assert Rule().raised([chance[3:]]) == Rule()


def test_a_chance_that_is_no_exact_number_still_counts_rows() -> None:
    """.29 · 100 is a little less than 29 in binary."""
    null = torch.tensor([[0.2, 0.8]] * 29 + [[0.1, 0.2]] * 71)
    assert Rule(chance=0.29).raised([null]).least == 0.6
    assert Rule(chance=0.28).raised([null]).least > 0.8


# --- what chance makes of rows ----------------------------------------------------------------


def test_the_parent_null_keeps_the_part_along_the_best_atom_and_the_length_of_the_rest() -> None:
    rows, atoms = gaussian(60, 12), gaussian(20, 12, seed=1)
    fitted = pursue(rows, atoms)
    null = parent_null(rows * 3, atoms * 7, fitted, generator(0))
    best = unit(atoms)[[int((unit(atoms) @ row).argmax()) for row in rows]]
    before, after = unit(rows), null
    torch.testing.assert_close((after * best).sum(dim=1), (before * best).sum(dim=1))
    old, new = rests(before, best), rests(after, best)
    torch.testing.assert_close(new.norm(dim=1), old.norm(dim=1))
    assert float((unit(new) * unit(old)).sum(dim=1).abs().mean()) < 0.5
    torch.testing.assert_close(after.norm(dim=1), torch.ones(60, dtype=torch.float64))
    assert torch.equal(null, parent_null(rows * 3, atoms * 7, fitted, generator(0)))
    assert not torch.equal(null, parent_null(rows * 3, atoms * 7, fitted, generator(1)))


def test_rests_are_redrawn_with_the_covariance_that_they_had() -> None:
    """Rests of equal length, four times the power along 20 directions, none along 20 others."""
    power = torch.tensor([0.0] + [2.0] * 20 + [1.0] * 20 + [0.0] * 20, dtype=torch.float64)
    atom = torch.eye(61, dtype=torch.float64)[:1]
    rows = 0.6 * atom + 0.8 * unit(gaussian(4000, 61) * power)
    fitted = pursue(rows, atom, count=2)
    new = rests(parent_null(rows, atom, fitted, generator(0)), atom)
    got, expected = (table.T @ table / len(table) for table in (new, rests(unit(rows), atom)))
    assert (
        float(expected[1:21, 1:21].diagonal().sum() / expected[21:41, 21:41].diagonal().sum()) > 3.5
    )
    spread = float((got - expected).norm() / expected.norm())
    assert spread < 0.15  # 40 directions from 4000 draws twice: sqrt(2 · 40 / 4000) at most
    assert float(got[41:, 41:].diagonal().sum()) < 1e-12


def test_a_row_that_no_atom_is_near_keeps_nothing() -> None:
    atoms = torch.eye(6, dtype=torch.float64)[:2]
    rows = torch.cat([-unit(gaussian(30, 6).abs()), atoms[:1]])
    fitted = pursue(rows, atoms)
    assert fitted.atoms[:, 0].tolist() == [-1] * 30 + [0]
    null = parent_null(rows, atoms, fitted, generator(0))
    torch.testing.assert_close(null.norm(dim=1), torch.ones(31, dtype=torch.float64))
    for atom in atoms:
        assert abs(float(((null[:30] - rows[:30]) @ atom).abs().mean())) > 0.2
    torch.testing.assert_close(null[30], atoms[0])


def test_rows_and_their_null_are_fitted_as_plain_pursuit_fits_them() -> None:
    rows, atoms = gaussian(12, 8).float() * 3, gaussian(20, 8, seed=1).float()
    fitted, null = pursue_with_null(rows, atoms, 3, generator(5))
    for row, explained in zip(rows, fitted.explained, strict=True):
        assert explained.tolist() == pytest.approx(plain.pursuit(row, atoms, 3), abs=1e-5)
    table = parent_null(rows, atoms, fitted, generator(5))
    for row, explained in zip(table, null.explained, strict=True):
        assert explained.tolist() == pytest.approx(plain.pursuit(row, atoms, 3), abs=1e-5)


@pytest.mark.parametrize(("m", "count", "seed"), [(40, 5, 0), (40, 5, 1), (60, 12, 2), (9, 9, 3)])
def test_k_means_agrees_with_plain_loops(m: int, count: int, seed: int) -> None:
    rows = unit(gaussian(m, 4, seed=seed))
    centres, cluster = k_means(rows * 5, count, generator(seed))
    start = rows[torch.randperm(m, generator=generator(seed))[:count]]
    expected, nearest = plain.k_means(rows, start)
    assert cluster.tolist() == nearest
    torch.testing.assert_close(centres, expected)


def test_tight_clusters_are_found_exactly() -> None:
    middle = torch.eye(12, dtype=torch.float64)[:6]
    rows = unit(middle.repeat_interleave(10, 0) + 0.05 * gaussian(60, 12))
    truth, exact = [number // 10 for number in range(60)], 0
    for seed in range(200):
        start = torch.randperm(60, generator=generator(seed))[:6]
        if len({truth[number] for number in start.tolist()}) < 6:
            continue
        centres, cluster = k_means(rows, 6, generator(seed))
        named = [truth[number] for number in start.tolist()]
        assert [named[number] for number in cluster.tolist()] == truth
        means = unit(rows.view(6, 10, 12).sum(dim=1))[named]
        torch.testing.assert_close(centres, means)
        exact += 1
    assert exact  # about 1 start in 65 has a row of each


def test_directions_that_no_row_is_nearest_to_stay_where_they_are() -> None:
    rows = unit(gaussian(3, 5)).repeat(4, 1)
    centres, cluster = k_means(rows, 12, generator(0))
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(12, dtype=torch.float64))
    assert len(set(cluster.tolist())) == 3
    torch.testing.assert_close(centres[cluster], rows)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    centres, cluster = k_means(opposite, 1, generator(0))  # their sum is 0 and has no direction
    assert cluster.tolist() == [0, 0]
    assert centres.norm().item() == 1


def test_one_parent_keeps_each_row_along_its_cluster_and_redraws_the_rest() -> None:
    rows = gaussian(80, 10).float() * 4
    varied = one_parent(rows, 5, generator(7))
    draws = generator(7)
    parents, cluster = k_means(rows, 5, draws)
    before, parent = unit(rows), parents[cluster]
    torch.testing.assert_close((varied * parent).sum(dim=1), (before * parent).sum(dim=1))
    torch.testing.assert_close(varied.norm(dim=1), torch.ones(80, dtype=torch.float64))
    new, old = (unit(rests(table, parent)) for table in (varied, before))
    assert float((new * old).sum(dim=1).abs().mean()) < 0.5
    assert len(set(cluster.tolist())) == 5


# --- planted sums, what is explained, and the excess ------------------------------------------


def test_planted_sums_have_two_or_three_parts_and_their_noise() -> None:
    d, a, n = 1024, 64, 1500
    atoms = torch.eye(d, dtype=torch.float64)[:a] * 3
    planted = planted_sums(atoms, n, generator(0))
    torch.testing.assert_close(planted.norm(dim=1), torch.ones(n, dtype=torch.float64))
    weights = planted[:, :a]
    parts = (weights > 0.2).sum(dim=1)
    assert set(parts.tolist()) == {2, 3}
    assert float((parts == 2).double().mean()) == pytest.approx(0.5, abs=0.06)  # 4.6 errors
    assert float((weights <= 0.2).double().mul(weights).abs().max()) < 0.06  # noise alone
    used = (weights > 0.2).sum(dim=0).double()
    assert float(used.min()) > 0.4 * n * 2.5 / a  # every atom is drawn
    ratios = [float(max(row[row > 0.2]) / min(row[row > 0.2])) for row in weights]
    assert 1.6 < max(ratios) < 1.25 / 0.75 * 1.1
    noise = planted[:, a:].square().sum(dim=1).mean() * d / (d - a)
    assert float(noise) == pytest.approx(0.3**2 / (1 + 0.3**2), rel=0.02)


def test_planted_sums_of_a_seed_are_the_same() -> None:
    atoms = gaussian(5, 4)
    first, repeated = (planted_sums(atoms, 6, generator(0)) for _ in range(2))
    assert torch.equal(first, repeated)
    assert not torch.equal(first, planted_sums(atoms, 6, generator(1)))
    assert planted_sums(atoms, 0, generator(0)).shape == (0, 4)


def test_variance_explained_is_that_of_a_plain_pursuit() -> None:
    rows, atoms = gaussian(30, 8) + 1.0, gaussian(12, 8, seed=1)
    table = unit(rows)
    residual = sum(1 - plain.pursuit(row, atoms, 4)[-1] for row in table)
    spread = float(((table - table.mean(dim=0)) ** 2).sum())
    explained = variance_explained(rows, pursue(rows, atoms).explained[:, -1])
    assert explained == pytest.approx(1 - residual / spread, abs=1e-9)
    assert explained < 1 - residual / len(rows) - 0.01  # about the mean, not about 0


def test_rows_that_are_all_alike_have_no_variance_to_explain() -> None:
    rows = gaussian(1, 8).repeat(5, 1) + 1e-9 * gaussian(5, 8, seed=2)
    explained = pursue(rows, gaussian(3, 8, seed=1)).explained[:, -1]
    assert math.isnan(variance_explained(rows, explained))


@pytest.mark.parametrize(
    ("share", "null", "expected"),
    [(0.5, 0.0, 0.5), (0.6, 0.2, 0.5), (0.2, 0.2, 0.0), (0.1, 0.4, -0.5), (1.0, 0.9, 1.0)],
)
def test_the_excess_is_the_share_of_true_sums(share: float, null: float, expected: float) -> None:
    assert excess(share, null) == pytest.approx(expected)
    assert expected + (1 - expected) * null == pytest.approx(share)


def test_where_chance_makes_sums_of_all_there_is_no_excess() -> None:
    assert math.isnan(excess(1.0, 1.0))
