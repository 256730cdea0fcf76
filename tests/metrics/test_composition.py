"""Sums of a smaller SAE's latents are found where they were planted, and only there."""

from __future__ import annotations

import itertools
import math
from typing import Any

import brute_force as plain
import pandas as pd
import pytest
import torch
from brute_force import TinySAE, sorted_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes
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
from saebench_canon.kernels.nulls import covariance_matched, isotropic
from saebench_canon.kernels.random_generators import generator
from saebench_canon.kernels.sum_rule import Rule
from saebench_canon.metrics.composition.metric import composition
from saebench_canon.plugin.metric import Mark, Measurement, Undefined, Value


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


def pursued(row: Tensor, atoms: Tensor, count: int = 4) -> list[float]:
    """Shares explained by plain pursuit with scipy's non-negative least squares."""
    return plain.pursuit(row.double(), atoms.double(), count)


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


def rests(rows: Tensor, atoms: Tensor) -> Tensor:
    """The rows less what lies along their atoms."""
    return rows - (rows * atoms).sum(dim=1, keepdim=True) * atoms


def test_the_parent_null_keeps_the_part_along_the_best_atom_and_the_length_of_the_rest() -> None:
    rows, atoms = random(60, 12), random(20, 12, seed=1)
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
    rows = 0.6 * atom + 0.8 * unit(random(4000, 61) * power)
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
    rows = torch.cat([-unit(random(30, 6).abs()), atoms[:1]])
    fitted = pursue(rows, atoms)
    assert fitted.atoms[:, 0].tolist() == [-1] * 30 + [0]
    null = parent_null(rows, atoms, fitted, generator(0))
    torch.testing.assert_close(null.norm(dim=1), torch.ones(31, dtype=torch.float64))
    for atom in atoms:
        assert abs(float(((null[:30] - rows[:30]) @ atom).abs().mean())) > 0.2
    torch.testing.assert_close(null[30], atoms[0])


def test_rows_and_their_null_are_fitted_as_plain_pursuit_fits_them() -> None:
    rows, atoms = random(12, 8).float() * 3, random(20, 8, seed=1).float()
    fitted, null = pursue_with_null(rows, atoms, 3, generator(5))
    for row, explained in zip(rows, fitted.explained, strict=True):
        assert explained.tolist() == pytest.approx(pursued(row, atoms, 3), abs=1e-5)
    table = parent_null(rows, atoms, fitted, generator(5))
    for row, explained in zip(table, null.explained, strict=True):
        assert explained.tolist() == pytest.approx(pursued(row, atoms, 3), abs=1e-5)


@pytest.mark.parametrize(("m", "count", "seed"), [(40, 5, 0), (40, 5, 1), (60, 12, 2), (9, 9, 3)])
def test_k_means_agrees_with_plain_loops(m: int, count: int, seed: int) -> None:
    rows = unit(random(m, 4, seed=seed))
    centres, cluster = k_means(rows * 5, count, generator(seed))
    start = rows[torch.randperm(m, generator=generator(seed))[:count]]
    expected, nearest = plain.k_means(rows, start)
    assert cluster.tolist() == nearest
    torch.testing.assert_close(centres, expected)


def test_tight_clusters_are_found_exactly() -> None:
    middle = torch.eye(12, dtype=torch.float64)[:6]
    rows = unit(middle.repeat_interleave(10, 0) + 0.05 * random(60, 12))
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
    rows = unit(random(3, 5)).repeat(4, 1)
    centres, cluster = k_means(rows, 12, generator(0))
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(12, dtype=torch.float64))
    assert len(set(cluster.tolist())) == 3
    torch.testing.assert_close(centres[cluster], rows)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    centres, cluster = k_means(opposite, 1, generator(0))  # their sum is 0 and has no direction
    assert cluster.tolist() == [0, 0]
    assert centres.norm().item() == 1


def test_one_parent_keeps_each_row_along_its_cluster_and_redraws_the_rest() -> None:
    rows = random(80, 10).float() * 4
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
    atoms = random(5, 4)
    first, repeated = (planted_sums(atoms, 6, generator(0)) for _ in range(2))
    assert torch.equal(first, repeated)
    assert not torch.equal(first, planted_sums(atoms, 6, generator(1)))
    assert planted_sums(atoms, 0, generator(0)).shape == (0, 4)


def test_variance_explained_is_that_of_a_plain_pursuit() -> None:
    rows, atoms = random(30, 8) + 1.0, random(12, 8, seed=1)
    table = unit(rows)
    residual = sum(1 - pursued(row, atoms)[-1] for row in table)
    spread = float(((table - table.mean(dim=0)) ** 2).sum())
    explained = variance_explained(rows, pursue(rows, atoms))
    assert explained == pytest.approx(1 - residual / spread, abs=1e-9)
    assert explained < 1 - residual / len(rows) - 0.01  # about the mean, not about 0


def test_rows_that_are_all_alike_have_no_variance_to_explain() -> None:
    rows = random(1, 8).repeat(5, 1) + 1e-9 * random(5, 8, seed=2)
    assert math.isnan(variance_explained(rows, pursue(rows, random(3, 8, seed=1))))


@pytest.mark.parametrize(
    ("share", "null", "expected"),
    [(0.5, 0.0, 0.5), (0.6, 0.2, 0.5), (0.2, 0.2, 0.0), (0.1, 0.4, -0.5), (1.0, 0.9, 1.0)],
)
def test_the_excess_is_the_share_of_true_sums(share: float, null: float, expected: float) -> None:
    assert excess(share, null) == pytest.approx(expected)
    assert expected + (1 - expected) * null == pytest.approx(share)


def test_where_chance_makes_sums_of_all_there_is_no_excess() -> None:
    assert math.isnan(excess(1.0, 1.0))


# --- the metric -------------------------------------------------------------------------------


def measure(
    small: Tensor,
    large: Tensor,
    small_codes: Codes | None = None,
    large_codes: Codes | None = None,
    **more: Any,
) -> Measurement:
    small_sae, large_sae = (TinySAE(rows, torch.zeros(rows.shape[1])) for rows in (small, large))
    measurement = composition.measure(small_sae, large_sae, small_codes, large_codes, **more)
    assert isinstance(measurement, Measurement)
    return measurement


def values(measurement: Measurement) -> dict[str, float | str]:
    out: dict[str, float | str] = {}
    for name, score in measurement.scores.items():
        number = score.value if isinstance(score, Value) else score
        out[name] = number.reason if isinstance(number, Undefined) else number
    return out


def number(measurement: Measurement, name: str) -> float:
    score = values(measurement)[name]
    assert isinstance(score, float), score
    return score


def sums(atoms: Tensor, count: int, g: torch.Generator) -> Tensor:
    """Sums of two or three of the atoms each, without noise."""
    rows = []
    for index in range(count):
        chosen = torch.randperm(len(atoms), generator=g)[: 2 + index % 2]
        weights = 0.75 + 0.5 * torch.rand(len(chosen), generator=g, dtype=torch.float64)
        rows.append(weights @ atoms[chosen])
    return torch.stack(rows)


def near(rows: Tensor, cosine: float, g: torch.Generator) -> Tensor:
    """Rows at this cosine to the given ones."""
    aside = torch.randn(rows.shape, generator=g, dtype=torch.float64)
    aside = unit(rests(aside, unit(rows)))
    return cosine * unit(rows) + math.sqrt(1 - cosine**2) * aside


@pytest.mark.parametrize(("d", "m"), [(64, 128), (128, 256)])
def test_planted_sums_of_small_rows_are_all_found(d: int, m: int) -> None:
    g = generator(0, "planted")
    small = isotropic(m, d, g)
    measurement = measure(small.float(), sums(small, 2 * m, g).float())
    assert number(measurement, "composed_share") == 1
    assert number(measurement, "composed_excess") == 1
    assert number(measurement, "planted_recall") > 0.97
    assert number(measurement, "explained_variance") > 0.95
    assert set(measurement.scores) == {score.name for score in composition.scores}
    assert set(measurement.tables) == {"latents"}


def test_a_mixture_reads_the_share_of_sums_in_it() -> None:
    g = generator(0, "mixture")
    small = isotropic(64, 64, g)
    large = torch.cat([small, isotropic(104, 64, g), sums(small, 56, g)])
    measurement = measure(small.float(), large.float())
    assert number(measurement, "composed_share") == pytest.approx(0.25, abs=0.01)
    table = measurement.tables["latents"]
    composed = set(table[table.composed].latent)
    assert set(range(168, 224)) <= composed
    assert len(composed) <= 58


def test_new_directions_are_no_sums() -> None:
    g = generator(0, "new")
    measurement = measure(isotropic(128, 64, g).float(), isotropic(256, 64, g).float())
    assert number(measurement, "composed_share") <= 0.05
    assert abs(number(measurement, "composed_excess")) <= 0.03
    assert number(measurement, "planted_recall") > 0.97


@pytest.mark.parametrize("cosine", [0.6, 0.7, 0.8, 0.9])
def test_splits_of_one_parent_are_no_sums(cosine: float) -> None:
    g = generator(0, "splits")
    parents = isotropic(64, 64, g)
    small = torch.cat([parents, isotropic(64, 64, g)])
    large = near(parents.repeat_interleave(4, 0), cosine, g)
    measurement = measure(small.float(), large.float())
    assert number(measurement, "composed_excess") <= 0.04
    assert number(measurement, "composed_least") >= 0.6


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 999))
def test_order_scale_and_dead_latents_change_no_score_at_all(seed: int) -> None:
    g = generator(seed, "change")
    small, large = random(20, 8, seed=seed).float(), random(40, 8, seed=seed + 1).float()
    before = measure(small, large)

    def changed(rows: Tensor) -> tuple[Tensor, Codes, Tensor]:
        m, d = rows.shape
        order = torch.randperm(m, generator=g)
        scale = 2.0 ** torch.randint(-3, 4, (m, 1), generator=g)
        table = torch.cat([random(5, d, seed=seed + 7).float(), rows[order] * scale])
        live = torch.cat([torch.zeros(3, 5), torch.ones(3, m)], dim=1)
        return table, Codes.from_dense(live), order

    (small_rows, small_codes, first), (large_rows, large_codes, second) = (
        changed(small),
        changed(large),
    )
    after = measure(small_rows, large_rows, small_codes, large_codes)
    assert values(after) == values(before)
    table = after.tables["latents"].copy()
    table["latent"] = second[torch.tensor(table.latent.to_numpy()) - 5].numpy()
    table["atom"] = first[torch.tensor(table.atom.to_numpy()) - 5].numpy()
    table = table.sort_values("latent", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(table, before.tables["latents"], check_exact=True)


def test_any_scale_changes_no_more_than_rounding_does() -> None:
    g = generator(0, "scale")
    small = isotropic(24, 16, g).float()
    large = torch.cat([sums(small.double(), 30, g), isotropic(30, 16, g)]).float()
    scale = torch.rand(60, 1, generator=g) * 5 + 0.1
    before, after = measure(small, large), measure(small * scale[:24], large * scale)
    for name in before.scores:
        assert number(after, name) == pytest.approx(number(before, name), abs=1e-5), name


@pytest.mark.parametrize(("seed", "higher"), [(3, "covariance"), (0, "parent")])
def test_scores_are_those_of_a_plain_pursuit(seed: int, higher: str) -> None:
    g = generator(seed, "scores")
    small, large = isotropic(20, 8, g).float(), isotropic(48, 8, g).float()
    large[:12] = sums(small.double(), 12, g).float()
    measurement = measure(small, large, seed=5, gain=0.25, chance=0.2)
    explained = [pursued(row, small) for row in large]
    ordered = sorted_rows(large)
    parent = parent_null(
        ordered, small, pursue(ordered, small), generator(5, "composition", "parent")
    )
    draws = generator(5, "composition", "clusters")
    some = torch.randperm(48, generator=draws)
    clusters = [one_parent(ordered, count, draws)[some] for count in (3, 6)]
    worlds = (parent, random_rows(ordered, 5), *clusters)
    nulls = [[pursued(row, small) for row in world] for world in worlds]
    least = number(measurement, "composed_least")
    assert least == pytest.approx(plain.least_raised(0.6, 0.25, 0.2, nulls), abs=1e-5)
    assert least > 0.61  # it had to be raised

    def share(table: list[list[float]]) -> float:
        return sum(plain.is_sum(shares, least, 0.25) for shares in table) / len(table)

    assert number(measurement, "composed_share") == pytest.approx(share(explained))
    by_parent, by_covariance, *by_clusters = (share(null) for null in nulls)
    assert number(measurement, "composed_null_parent") == pytest.approx(by_parent)
    assert number(measurement, "composed_null_covariance") == pytest.approx(by_covariance)
    assert number(measurement, "composed_null_clusters") == pytest.approx(max(by_clusters))
    null = max(by_parent, by_covariance, *by_clusters)
    assert by_parent != by_covariance
    limits = [plain.least_raised(0.6, 0.25, 0.2, [null]) for null in nulls]
    assert (limits[0] > limits[1]) == (higher == "parent")
    assert number(measurement, "composed_null") == null
    assert number(measurement, "composed_excess") == pytest.approx(
        (share(explained) - null) / (1 - null)
    )
    table = unit(large)
    spread = float(((table - table.mean(dim=0)) ** 2).sum())
    residual = sum(1 - e[-1] for e in explained)
    assert number(measurement, "explained_variance") == pytest.approx(
        1 - residual / spread, abs=1e-5
    )
    drawn = random_rows(ordered, 5)
    spread = float(((drawn - drawn.mean(dim=0)) ** 2).sum())
    residual = sum(1 - e[-1] for e in nulls[1])
    assert number(measurement, "null_covariance") == pytest.approx(1 - residual / spread, abs=1e-5)


def random_rows(ordered: Tensor, seed: int) -> Tensor:
    return covariance_matched(ordered, generator(seed, "composition", "covariance"))


def test_at_most_1024_random_rows_are_fitted() -> None:
    g = generator(0, "many")
    small, large = isotropic(5, 4, g).float(), isotropic(1100, 4, g).float() + 0.2
    measurement = measure(small, large)
    drawn = covariance_matched(
        sorted_rows(large), generator(0, "composition", "covariance"), count=1024
    )
    residual = sum(1 - pursued(row, small)[-1] for row in drawn.float())
    spread = float(((drawn - drawn.mean(dim=0)) ** 2).sum())
    assert number(measurement, "null_covariance") == pytest.approx(1 - residual / spread, abs=1e-5)


def test_the_table_names_atoms_and_weights_as_non_negative_least_squares_does() -> None:
    g = generator(0, "table")
    small, large = isotropic(20, 16, g).float(), isotropic(30, 16, g).float()
    large[:10] = sums(small.double(), 10, g).float()
    measurement = measure(small * 2, large * 3)
    table, least = measurement.tables["latents"], number(measurement, "composed_least")
    assert list(table.columns) == ["latent", "atom", "weight", "explained", "composed"]
    assert table.latent.is_monotonic_increasing
    for latent, lines in table.groupby("latent"):
        row = large[latent]
        explained = pursued(row, small)[: len(lines)]
        assert lines.explained.tolist() == pytest.approx(explained, abs=1e-5)
        weights = torch.tensor(lines.weight.tolist(), dtype=torch.float64)
        rebuilt = weights @ unit(small[lines.atom.tolist()])
        residual = float((unit(row[None])[0] - rebuilt).square().sum())
        assert 1 - residual == pytest.approx(explained[-1], abs=1e-5)
        assert (lines.weight >= 0).all()
        full = pursued(row, small)
        assert lines.composed.tolist() == [plain.is_sum(full, least, 0.2)] * len(lines)
    assert set(table.latent) == set(range(30))
    share = table.groupby("latent").composed.first().mean()
    assert number(measurement, "composed_share") == pytest.approx(share)


def test_a_row_that_no_small_row_is_near_has_no_line() -> None:
    small = torch.eye(4)[:3]
    large = torch.cat([-torch.eye(4)[:3], torch.eye(4)[3:], torch.ones(1, 4)])
    measurement = measure(small, large)
    assert set(measurement.tables["latents"].latent) == {4}


def test_the_same_seed_gives_the_same_and_the_global_generator_is_left_alone() -> None:
    small, large = random(20, 8).float(), random(40, 8, seed=1).float()
    state = torch.random.get_rng_state()
    first, repeated = (measure(small, large, seed=3) for _ in range(2))
    assert values(first) == values(repeated)
    assert values(measure(small, large, seed=4)) != values(first)
    assert torch.equal(torch.random.get_rng_state(), state)


def silent(width: int, *live: int) -> Codes:
    dense = torch.zeros(3, width)
    dense[0, list(live)] = 1.0
    return Codes.from_dense(dense)


@pytest.mark.parametrize(
    ("small", "large", "which"),
    [((), (0, 1), "smaller"), ((0, 1), (), "larger"), ((), (), "smaller")],
)
def test_without_a_live_latent_every_score_is_undefined(
    small: tuple[int, ...], large: tuple[int, ...], which: str
) -> None:
    measurement = measure(random(6, 4), random(9, 4), silent(6, *small), silent(9, *large))
    assert set(measurement.scores) == {score.name for score in composition.scores}
    reason = f"no latent of the {which} SAE is live"
    assert set(measurement.scores.values()) == {Undefined(reason)}


def test_only_live_latents_are_sums_and_atoms() -> None:
    g = generator(0, "live")
    small = isotropic(12, 16, g)
    large = torch.cat([sums(small[:6], 8, g), isotropic(8, 16, g)])
    codes = silent(16, *range(12))
    measurement = measure(small, large, silent(12, *range(6)), codes)
    assert number(measurement, "composed_share") == pytest.approx(8 / 12)
    table = measurement.tables["latents"]
    assert set(table.atom) <= set(range(6))
    assert set(table.latent) <= set(range(12))
    none = measure(small, large, silent(12, *range(6, 12)), codes)
    assert number(none, "composed_share") < 0.2


def test_no_sum_can_be_planted_of_fewer_than_three_small_latents() -> None:
    large = random(20, 6)
    two = measure(random(2, 6), large)
    assert values(two)["planted_recall"] == "fewer than 3 small latents are live"
    assert isinstance(values(two)["composed_share"], float)
    assert isinstance(values(measure(random(3, 6), large))["planted_recall"], float)


def test_larger_rows_that_are_all_alike_have_no_variance() -> None:
    scores = values(measure(random(6, 4), torch.ones(5, 4)))
    assert scores["explained_variance"] == "the larger SAE's rows do not vary"
    assert isinstance(scores["composed_share"], float)


def test_where_chance_makes_sums_of_all_rows_there_is_no_excess() -> None:
    """In two dimensions random rows are sums of the axes too, and `chance = 1` lets them be."""
    angles = torch.linspace(0.6, 0.95, 12)
    large = torch.stack([angles.cos(), angles.sin()], dim=1)
    scores = values(measure(torch.eye(2), large, gain=0.05, chance=1.0))
    assert (scores["composed_share"], scores["composed_null"]) == (1, 1)
    assert scores["composed_least"] == 0.6
    assert scores["composed_excess"] == "chance explains rows whole"


@pytest.mark.parametrize("given_codes", list(itertools.product([False, True], repeat=2)))
def test_without_activations_a_note_says_that_all_count(given_codes: tuple[bool, bool]) -> None:
    codes = [
        silent(width, *range(width)) if has_codes else None
        for width, has_codes in zip((6, 9), given_codes, strict=True)
    ]
    measurement = measure(random(6, 4), random(9, 4), *codes)
    note = Mark("note", "no activations: every latent counts as live")
    assert measurement.marks == (() if all(given_codes) else (note,))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"atoms": 1}, "composition: atoms must be 2 or more, got 1"),
        (
            {"least": 0.0},
            "composition: least must be a share of a row, above 0 and up to 1, got 0.0",
        ),
        (
            {"least": 1.1},
            "composition: least must be a share of a row, above 0 and up to 1, got 1.1",
        ),
        ({"gain": 0.0}, "composition: gain must be a share of a row, above 0 and up to 1, got 0.0"),
        (
            {"gain": -0.1},
            "composition: gain must be a share of a row, above 0 and up to 1, got -0.1",
        ),
        ({"chance": -0.1}, "composition: chance must be a share of rows, 0 to 1, got -0.1"),
        ({"chance": 1.5}, "composition: chance must be a share of rows, 0 to 1, got 1.5"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CanonError) as caught:
        measure(random(6, 4), random(9, 4), **wrong)
    assert str(caught.value) == sentence


def test_settings_do_what_they_say() -> None:
    """Sums of two orthogonal atoms, then of three, whose part beyond one is below .5 or above."""
    small = torch.eye(40)
    pairs = [small[number] + 0.9 * small[number + 1] for number in range(20)]
    threes = [
        small[number] + 0.9 * small[number + 1] + 0.8 * small[number + 2] for number in range(20)
    ]

    def composed(**more: Any) -> set[int]:
        table = measure(small, torch.stack(pairs + threes), **more).tables["latents"]
        return set(table[table.composed].latent)

    assert composed() == set(range(40))
    assert composed(atoms=2, least=0.9) == set(range(20))
    assert composed(gain=0.5) == set(range(20, 40))
    assert composed(gain=0.7) == set()


def test_siblings_of_loose_clusters_are_no_sums_of_each_other() -> None:
    """Four siblings average to their centre; the null of clusters does so too."""
    g = generator(3, "siblings")
    centres = isotropic(16, 64, g).repeat_interleave(48, 0)
    aside = isotropic(768, 64, g)
    aside = unit(aside - (aside * centres).sum(dim=1, keepdim=True) * centres)
    rows = (0.6**0.5 * centres + 0.4**0.5 * aside)[torch.randperm(768, generator=g)].float()
    measurement = measure(rows[:256], rows[256:])
    assert number(measurement, "composed_null_parent") < 0.05
    assert number(measurement, "composed_null_clusters") > 0.03
    assert abs(number(measurement, "composed_excess")) < 0.06


def test_in_too_few_dimensions_nothing_is_told_to_be_a_sum() -> None:
    scores = values(measure(random(8, 4).float(), random(60, 4, seed=1).float()))
    assert scores["composed_share"] == "chance explains rows whole"
    assert scores["planted_recall"] == "chance explains rows whole"
    assert isinstance(scores["composed_least"], float)
