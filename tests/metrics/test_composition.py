"""Sums of a smaller SAE's latents are found where they were planted, and only there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import brute_force as plain
import numpy as np
import pandas as pd
import pytest
import torch
from brute_force import TinySAE, gaussian, rests, sorted_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import values
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.composition import (
    one_parent,
    parent_null,
)
from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.nnomp import pursue
from saebench_canon.kernels.nulls import covariance_matched, isotropic
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.comparison.metric import comparison
from saebench_canon.metrics.composition.metric import composition
from saebench_canon.plugin.metric import Mark, Measurement, Undefined
from saebench_canon.questions.relations import Family, Relation
from saebench_canon.questions.weighted import sums as weighted_sums


def sae(rows: Tensor) -> Any:
    return TinySAE(rows, torch.zeros(rows.shape[1]))


def measure(
    small: Tensor,
    large: Tensor,
    small_codes: Codes | None = None,
    large_codes: Codes | None = None,
    peers: Sequence[Tensor] = (),
    **more: Any,
) -> Measurement:
    measurement = composition.measure(
        sae(small), sae(large), small_codes, large_codes, tuple(map(sae, peers)), **more
    )
    assert isinstance(measurement, Measurement)
    return measurement


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


def orthogonal(m: int, d: int, g: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q[:m]


@pytest.mark.parametrize("d", [64, 128])
def test_planted_sums_of_small_rows_are_all_found(d: int) -> None:
    g = generator(0, "planted")
    small = orthogonal(d, d, g)
    measurement = measure(small.float(), sums(small, 2 * d, g).float())
    assert number(measurement, "composed_share") == 1
    assert number(measurement, "composed_excess") == 1
    assert number(measurement, "planted_recall") > 0.97
    assert number(measurement, "explained_variance") > 0.95
    assert set(measurement.scores) == {score.name for score in composition.scores}
    assert set(measurement.tables) == {"latents"}


def test_a_mixture_reads_the_share_of_sums_in_it() -> None:
    g = generator(0, "mixture")
    small = orthogonal(64, 128, g)
    large = torch.cat([small, isotropic(104, 128, g), sums(small, 56, g)])
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
    assert number(measurement, "merged_share") <= 0.05
    assert number(measurement, "planted_recall") > 0.95


def test_two_small_latents_merged_in_one_large_latent_and_the_reverse() -> None:
    """The larger SAE has a sum of two small rows; the smaller one has sums of two large rows."""
    d = 40
    axes = torch.eye(d)
    small = torch.cat([axes[:10], unit(axes[10:14] + axes[14:18]).float()])
    large = torch.cat([axes[2:30], unit(axes[:1] + axes[1:2]).float()])
    measurement = measure(small, large)
    assert number(measurement, "composed_share") == pytest.approx(1 / 29)
    assert number(measurement, "merged_share") == pytest.approx(4 / 14)
    table = measurement.tables["latents"]
    assert set(table[table.composed].latent) == {28}
    assert set(table[table.composed].atom) == {0, 1}


def test_equal_dictionaries_have_no_sums() -> None:
    rows = isotropic(40, 32, generator(0, "equal")).float()
    measurement = measure(rows, rows)
    for name in ("composed_share", "merged_share"):
        assert number(measurement, name) == number(measurement, f"{name}_centred") == 0


def test_atoms_that_cancel_make_no_sum() -> None:
    """The first axis is 2.03 a + 2.19 b, of two rows that point apart."""
    first, second = torch.zeros(64), torch.zeros(64)
    first[:2] = torch.tensor([0.24, math.sqrt(1 - 0.24**2)])
    second[:2] = torch.tensor([0.20, -math.sqrt(1 - 0.20**2)])
    small = torch.cat([first[None], second[None], torch.eye(64)[8:40]])
    large = torch.cat([torch.eye(64)[:1], torch.eye(64)[8:40]])
    measurement = measure(small, large)
    assert number(measurement, "composed_share") == 0
    table = measurement.tables["latents"].set_index("latent")
    assert table.explained[0].max() > 0.99
    assert number(measure(small, large, gate=100.0), "composed_share") == pytest.approx(1 / 33)


def test_duplicates_change_no_share_and_have_the_lines_of_the_latent_they_double() -> None:
    g = generator(0, "doubled")
    small = isotropic(30, 48, g).float()
    large = torch.cat([isotropic(20, 48, g), sums(small.double(), 10, g)]).float()
    before = measure(small, large)
    doubled = torch.cat([large, large[25:], large[:2]])
    after = measure(torch.cat([small, small[:7]]), doubled)
    assert values(after) == values(before)
    lines = after.tables["latents"]
    columns = ["weight", "explained", "composed"]
    for copy, latent in ((30, 25), (35, 0), (36, 1)):
        left, right = (lines.loc[lines.latent == one, columns] for one in (copy, latent))
        assert left.to_numpy().tolist() == right.to_numpy().tolist()
    assert set(lines.latent) == set(range(37))


def test_latents_count_as_often_as_peers_find_them() -> None:
    """Of four latents two are sums; both peers find the first of these, and one the rest."""
    axes = torch.eye(32)
    small = axes[:12]
    pairs = unit(axes[0:4:2] + axes[1:5:2]).float()
    large = torch.cat([pairs, axes[20:22]])
    peers = [large[:1], large]
    shares = [
        number(measure(small, large, peers=chosen, chance=1.0), "composed_share")
        for chosen in ([], peers[:1], peers[1:], peers)
    ]
    assert shares == pytest.approx([2 / 4, 1, 2 / 4, 1.5 / 2.5])
    alone, among = (measure(small, large, peers=some, chance=1.0) for some in ([], peers))
    for name in ("merged_share", "composed_null", "planted_recall"):
        assert number(among, name) == number(alone, name)


def test_a_sum_explains_a_latent_about_as_well_as_its_twins() -> None:
    """Two axes explain .8 of the latent: enough unless its twin is at a squared cosine above .9."""
    axes = torch.eye(32)
    row = math.sqrt(0.4) * (axes[:1] + axes[1:2]) + math.sqrt(0.2) * axes[30:31]

    def share(cosine: float) -> float:
        twin = cosine * row + math.sqrt(1 - cosine**2) * axes[31:]
        found = measure(axes[:12], row, peers=[twin, axes[20:22]], chance=1.0)
        return number(found, "composed_share")

    assert share(math.sqrt(0.89)) == 1
    assert share(math.sqrt(0.91)) == 0
    assert number(measure(axes[:12], row, chance=1.0), "composed_share") == 1


def test_peers_that_find_no_latent_leave_the_share_undefined() -> None:
    g = generator(0, "unfound")
    small, large, peer = (isotropic(count, 48, g).float() for count in (10, 20, 20))
    found = values(measure(small, large, peers=[peer]))
    reason = "no latent of the larger SAE is found by a peer"
    assert found["composed_share"] == found["composed_excess"] == reason
    assert isinstance(found["composed_null"], float)
    assert isinstance(found["merged_share"], float)


def test_only_live_latents_of_peers_find_latents() -> None:
    axes = torch.eye(32)
    large = torch.cat([unit(axes[:1] + axes[1:2]).float(), axes[20:22]])
    measurement = composition.measure(
        sae(axes[:12]), sae(large), None, None, (sae(large), sae(large)),
        (silent(3, 0), silent(3)), chance=1.0,
    )  # fmt: skip
    assert isinstance(measurement, Measurement)
    assert number(measurement, "composed_share") == 1


def test_centred_shares_are_those_without_a_common_direction() -> None:
    g = generator(0, "common")
    axes = torch.eye(65, dtype=torch.float64)[:, :64]
    small = orthogonal(40, 64, g) @ axes[:64]
    large = torch.cat([sums(small, 30, g), isotropic(30, 64, g)])
    moved = [unit(rows) + 2 * axes[0] for rows in (small, large)]
    bare, found = (measure(*(rows.float() for rows in both)) for both in ((small, large), moved))
    assert number(bare, "composed_share") == pytest.approx(0.5, abs=0.02)
    assert number(found, "composed_share") < 0.1
    assert number(found, "composed_share_centred") > 0.4


def test_rows_that_are_the_common_direction_leave_centred_shares_undefined() -> None:
    large = gaussian(6, 4)
    found = values(measure(torch.ones(1, 4), large))
    reason = "no latent is more than the direction that rows share"
    assert found["composed_share_centred"] == found["merged_share_centred"] == reason
    assert isinstance(found["merged_share"], float)


# --- the rule of the questions ----------------------------------------------------------------


def seeds_of_a_world(seed: int) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Decoders of two small and three large SAEs; half of the large latents are sums of small ones.

    Each large seed lacks a quarter of what there is to find, and has random rows instead.
    """
    g = generator(seed, "world")
    features = isotropic(24, 40, g)
    there = torch.cat([features, isotropic(12, 40, g), sums(features, 36, g)])

    def drawn(rows: Tensor, lost: int) -> Tensor:
        noisy = near(rows, 0.94, g)
        gone = torch.randperm(len(rows), generator=g)[:lost]
        noisy[gone] = isotropic(lost, 40, g)
        return (noisy[torch.randperm(len(rows), generator=g)] + 0.1).float()

    rows = {f"s{number}": drawn(features, 2) for number in range(2)}
    rows |= {f"l{number}": drawn(there, 18) for number in range(3)}
    return rows, ["s0", "s1"], ["l0", "l1", "l2"]


def related(compared: dict[tuple[str, str], Measurement], view: str) -> Family:
    """What the questions read from the comparison of all pairs."""
    relations = {}
    for (small, large), found in compared.items():
        for of, at, side, end in ((large, small, "large", ""), (small, large, "small", "_small")):
            table = found.tables[side].dropna(subset=[f"cosine{view}"])
            columns = [
                table[f"{name}{view}"].to_numpy()
                for name in ("cosine", "first", "explained", "gated")
            ]
            relations[of, at] = Relation(*columns, least=number(found, f"sum_least{end}{view}"))
    return Family(relations, theta=0.7)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_mean_over_seeds_is_what_the_question_weighs(seed: int) -> None:
    """Equal for the share; for the floor equal up to the weights of the pairs between seeds.

    Of one larger seed, the question weighs each other seed by how many of its latents the peers
    without that seed find.
    """
    rows, small, large = seeds_of_a_world(seed)
    compared: dict[tuple[str, str], Measurement] = {}
    for below, above in itertools.combinations(rows, 2):
        pair = comparison.measure(sae(rows[below]), sae(rows[above]))
        assert isinstance(pair, Measurement)
        compared[below, above] = pair
    measured = {
        (at, of): measure(
            rows[at], rows[of], peers=[rows[peer] for peer in large if peer not in (at, of)]
        )
        for of in large
        for at in rows
        if at != of
    }
    for view in ("", "_centred"):
        share = {pair: number(measured[pair], f"composed_share{view}") for pair in measured}
        family = related(compared, view)
        question = weighted_sums(family, small, large)
        assert question is not None
        by_small = {one: np.mean([share[one, of] for of in large]) for one in small}
        assert question.by_small == pytest.approx(by_small, abs=1e-12)
        assert question.share.value == pytest.approx(np.mean(list(by_small.values())), abs=1e-12)
        assert 0.1 < question.share.value < 0.9
        floors = []
        for of in large:
            others = [at for at in large if at != of]
            finds = [int(family.found(of, third).sum()) for third in reversed(others)]
            floors.append(np.average([share[at, of] for at in others], weights=finds))
        assert question.floor == pytest.approx(np.mean(floors), abs=1e-12)
        assert question.floor > 0


# --- invariances ------------------------------------------------------------------------------


def test_a_rotation_changes_no_share() -> None:
    """Random rows are others then; with `chance = 1` they do not raise what a sum must explain."""
    rows, _, _ = seeds_of_a_world(3)
    turn = orthogonal(40, 40, generator(0, "turn"))
    chosen = [rows[name] for name in ("s0", "l0", "l1", "l2")]
    before, after = (
        measure(small, large, peers=peers, chance=1.0)
        for small, large, *peers in (chosen, [(table.double() @ turn).float() for table in chosen])
    )
    for name in ("composed_share", "merged_share", "merged_share_centred", "explained_variance"):
        assert number(after, name) == pytest.approx(number(before, name), abs=1e-4), name


def test_order_and_scale_of_peers_change_nothing() -> None:
    rows, _, _ = seeds_of_a_world(4)
    peers = [rows["l1"], rows["l2"]]
    changed = [4 * peers[1][torch.randperm(72, generator=generator(0, "order"))], peers[0]]
    before, after = (measure(rows["s0"], rows["l0"], peers=tables) for tables in (peers, changed))
    assert values(after) == values(before)


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
    small, large = gaussian(20, 8, seed=seed).float(), gaussian(40, 8, seed=seed + 1).float()
    before = measure(small, large)

    def changed(rows: Tensor) -> tuple[Tensor, Codes, Tensor]:
        m, d = rows.shape
        order = torch.randperm(m, generator=g)
        scale = 2.0 ** torch.randint(-3, 4, (m, 1), generator=g)
        table = torch.cat([gaussian(5, d, seed=seed + 7).float(), rows[order] * scale])
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


# --- written out ------------------------------------------------------------------------------

Shares = tuple[float, float]  # what the first and all atoms explain; a gated fit explains nothing


def shares_of(row: Tensor, atoms: Tensor) -> Shares:
    explained, squares = plain.fit(row.double(), atoms.double(), 4)
    return explained[0], explained[-1] if squares <= 1.2 else 0.0


def standing(rows: Tensor) -> Tensor:
    """The rows without duplicates, in float64, in the order in which metrics read them."""
    kept: list[Tensor] = []
    for row in unit(sorted_rows(rows)):
        if all(float(row @ other) < 0.95 for other in kept):
            kept.append(row)
    return torch.stack(kept)


def drawn_nulls(above: Tensor, below: Tensor, seed: int) -> list[Tensor]:
    """The tables of rows without sums: parent, covariance, and both of clusters."""
    parent = generator(seed, "comparison", "parent")
    clusters = [
        one_parent(above, len(above) // size, generator(seed, "comparison", "clusters", size))
        for size in (16, 8)
    ]
    return [
        parent_null(above, below, pursue(above, below), parent),
        covariance_matched(above, generator(seed, "comparison", "covariance")),
        *clusters,
    ]


def written_out(
    small: Tensor, large: Tensor, peers: Sequence[Tensor], seed: int
) -> dict[str, float]:
    """Shares, nulls and the raised level by loops over latents."""
    below, above = standing(small), standing(large)
    nulls = [[shares_of(row, below) for row in table] for table in drawn_nulls(above, below, seed)]
    least = plain.least_raised(0.6, 0.2, 0.05, nulls)
    weighted = total = 0.0
    for row in above:
        near_twins = []
        for peer in peers:
            cosine = max(float(row @ other) for other in unit(peer))
            if cosine >= 0.7:
                near_twins.append(cosine**2)
        weight = len(near_twins) / len(peers)
        first, explained = shares_of(row, below)
        ceiling = sum(near_twins) / len(near_twins) - 0.10 if near_twins else 0.0
        total += weight
        if explained - first >= 0.2 and explained >= max(least, ceiling):
            weighted += weight

    def share(table: Sequence[Shares], level: float) -> float:
        return sum(last >= level and last - first >= 0.2 for first, last in table) / len(table)

    by_null = [share(null, least) for null in nulls]
    merged = drawn_nulls(below, above, seed)[0]
    return {
        "composed_share": weighted / total,
        "composed_least": least,
        "composed_null": max(by_null),
        "composed_null_parent": by_null[0],
        "composed_null_covariance": by_null[1],
        "composed_null_clusters": max(by_null[2:]),
        "composed_excess": (weighted / total - max(by_null)) / (1 - max(by_null)),
        "merged_share": share([shares_of(row, above) for row in below], 0.6),
        "merged_null": share([shares_of(row, above) for row in merged], 0.6),
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_are_those_of_plain_loops(seed: int) -> None:
    rows, _, _ = seeds_of_a_world(seed)
    small = torch.cat([rows["s0"], unit(rows["l0"][:9] + rows["l0"][9:18]).float()])
    large = torch.cat([rows["l0"], rows["l0"][:5] * 3])
    peers = [rows["l1"], rows["l2"]]
    measurement = measure(small, large, peers=peers, seed=5)
    expected = written_out(small, large, peers, 5)
    for name, value in expected.items():
        assert number(measurement, name) == pytest.approx(value, abs=1e-5), name
    assert expected["composed_least"] > 0.61  # it had to be raised
    assert 0.05 < expected["composed_share"] < 0.95
    assert 0.05 < expected["merged_share"] < 0.95


def variance(rows: Tensor, atoms: Tensor) -> float:
    """The share of the rows' variance that plain pursuit explains, whatever the weights."""
    table = unit(rows)
    residual = sum(1 - plain.pursuit(row, atoms, 4)[-1] for row in table)
    return 1 - residual / float(((table - table.mean(dim=0)) ** 2).sum())


def test_explained_variance_is_that_of_standing_rows_and_of_random_ones() -> None:
    g = generator(0, "variance")
    small, large = isotropic(20, 8, g).float(), isotropic(48, 8, g).float()
    measurement = measure(small, torch.cat([large, large[:7]]), seed=5)
    above = standing(large)
    assert number(measurement, "explained_variance") == pytest.approx(
        variance(above, small), abs=1e-5
    )
    drawn = covariance_matched(above, generator(5, "comparison", "covariance"))
    assert number(measurement, "null_covariance") == pytest.approx(variance(drawn, small), abs=1e-5)


def test_at_most_1024_random_rows_are_fitted() -> None:
    g = generator(0, "many")
    small, large = isotropic(5, 10, g).float(), isotropic(1100, 10, g).float() + 0.2
    above = standing(large)
    assert len(above) > 1024
    drawn = covariance_matched(above, generator(0, "comparison", "covariance"), count=1024)
    assert number(measure(small, large), "null_covariance") == pytest.approx(
        variance(drawn, small), abs=1e-5
    )


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
        explained = plain.pursuit(row, small, 4)[: len(lines)]
        assert lines.explained.tolist() == pytest.approx(explained, abs=1e-5)
        weights = torch.tensor(lines.weight.tolist(), dtype=torch.float64)
        rebuilt = weights @ unit(small[lines.atom.tolist()])
        residual = float((unit(row[None])[0] - rebuilt).square().sum())
        assert 1 - residual == pytest.approx(explained[-1], abs=1e-5)
        assert (lines.weight >= 0).all()
        is_sum = plain.is_sum(shares_of(row, small), least, 0.2)
        assert lines.composed.tolist() == [is_sum] * len(lines)
    assert set(table.latent) == set(range(30))
    share = table.groupby("latent").composed.first().mean()
    assert number(measurement, "composed_share") == pytest.approx(share)


def test_a_row_that_no_small_row_is_near_has_no_line() -> None:
    small = torch.eye(4)[:3]
    large = torch.cat([-torch.eye(4)[:3], torch.eye(4)[3:], torch.ones(1, 4)])
    measurement = measure(small, large)
    assert set(measurement.tables["latents"].latent) == {4}


def test_the_same_seed_gives_the_same_and_the_global_generator_is_left_alone() -> None:
    small, large = gaussian(20, 8).float(), gaussian(40, 8, seed=1).float()
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
    measurement = measure(gaussian(6, 4), gaussian(9, 4), silent(6, *small), silent(9, *large))
    assert set(measurement.scores) == {score.name for score in composition.scores}
    reason = f"no latent of the {which} SAE is live"
    assert set(measurement.scores.values()) == {Undefined(reason)}


def test_only_live_latents_are_sums_and_atoms() -> None:
    g = generator(0, "live")
    small = orthogonal(12, 32, g)
    large = torch.cat([sums(small[:8], 8, g), isotropic(8, 32, g)])
    codes = silent(16, *range(12))
    measurement = measure(small, large, silent(12, *range(8)), codes)
    assert number(measurement, "composed_share") == pytest.approx(8 / 12)
    table = measurement.tables["latents"]
    assert set(table.atom) <= set(range(8))
    assert set(table.latent) <= set(range(12))
    none = measure(small, large, silent(12, *range(8, 12)), codes)
    assert number(none, "composed_share") < 0.2


def test_sums_are_planted_of_more_small_latents_than_a_sum_may_have() -> None:
    large = gaussian(20, 16)
    four = values(measure(gaussian(4, 16), large))
    assert four["planted_recall"] == "sums are planted of more than 4 small latents"
    assert isinstance(four["composed_share"], float)
    assert isinstance(values(measure(gaussian(5, 16), large))["planted_recall"], float)


def test_larger_rows_that_are_all_alike_have_no_variance() -> None:
    scores = values(measure(gaussian(6, 4), torch.ones(5, 4)))
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
    measurement = measure(gaussian(6, 4), gaussian(9, 4), *codes)
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
        ({"threshold": 1.5}, "composition: threshold must be a cosine, −1 to 1, got 1.5"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CanonError) as caught:
        measure(gaussian(6, 4), gaussian(9, 4), **wrong)
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
    scores = values(measure(gaussian(8, 4).float(), gaussian(60, 4, seed=1).float()))
    assert scores["composed_share"] == "chance explains rows whole"
    assert scores["planted_recall"] == "chance explains rows whole"
    assert isinstance(scores["composed_least"], float)
