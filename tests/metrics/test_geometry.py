"""How an SAE's rows lie to one another, held against plain loops and planted dictionaries."""

from __future__ import annotations

from typing import Any

import brute_force
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import value
from torch import Tensor
from torch.nn.functional import normalize

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes
from saebench_canon.metrics.geometry.metric import geometry
from saebench_canon.metrics.geometry.own_rows import nearest_other
from saebench_canon.plugin.metric import Measurement, Undefined
from saebench_canon.saes.fold import fold


def rows_of(count: int, d: int, seed: int) -> Tensor:
    return normalize(torch.randn(count, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def measured(
    rows: Tensor, seed: int = 0, codes: Codes | None = None, **changed: Any
) -> Measurement:
    sae = fold(W_enc=rows.T, W_dec=rows, b_dec=torch.zeros(rows.shape[1]), b_enc=None)
    found = geometry.measure(sae, codes, seed, **{**geometry.settings, **changed})
    assert isinstance(found, Measurement)
    return found


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_table_is_that_of_plain_loops(seed: int) -> None:
    rows = rows_of(9, 7, seed)
    rows[0] = normalize(rows[1] + 0.9 * rows[2], dim=0)
    result = measured(rows)
    table = result.tables["latents"].set_index("latent")
    if (table.twin_of >= 0).any():
        return
    exact = rows.double()
    for latent in table.index:
        others = [other for other in range(9) if other != latent]
        cosines = {other: float(exact[latent] @ exact[other]) for other in others}
        assert table.cosine[latent] == pytest.approx(max(cosines.values()), abs=2e-6)
        assert table.nearest[latent] == max(cosines, key=cosines.__getitem__)
        shares = brute_force.pursuit(exact[latent], exact[others], 4)
        assert table["first"][latent] == pytest.approx(shares[0], abs=1e-5)
        assert table.explained[latent] == pytest.approx(shares[-1], abs=1e-5)
        assert latent not in table.atoms[latent]
    assert value(result, "nearest_cosine") == pytest.approx(table.cosine.mean(), abs=1e-12)
    sums = ~table.gated & (table.explained >= 0.6 - 1e-6)
    sums &= table.explained - table["first"] >= 0.2 - 1e-6
    assert value(result, "own_sum_share") == pytest.approx(sums.mean(), abs=1e-12)


def test_a_planted_sum_and_its_parts_are_found() -> None:
    """The sum of two orthogonal rows is a sum; and neither of these is one of it and the other."""
    rows = torch.eye(6)
    rows = torch.cat([rows, normalize(rows[0] + rows[1], dim=0)[None]])
    result = measured(rows)
    table = result.tables["latents"].set_index("latent")
    assert sorted(table.atoms[6]) == [0, 1]
    assert table.explained[6] == pytest.approx(1)
    assert value(result, "own_sum_share") == pytest.approx(1 / 7)
    assert table.explained[0] == pytest.approx(0.5)  # of (a + b)/√2 alone: −b is no atom


@pytest.mark.parametrize("setting", [{"gain": 0.6}, {"atoms": 2, "least": 0.9}])
def test_the_settings_say_what_a_sum_is(setting: dict[str, float]) -> None:
    """One orthogonal row explains .42 of the last one, two .85, three all of it."""
    last = torch.tensor([[1, 1, 0.6, 0, 0, 0, 0, 0]])
    rows = torch.cat([torch.eye(8), normalize(last, dim=1)])
    assert value(measured(rows), "own_sum_share") == pytest.approx(1 / 9)
    assert value(measured(rows, **setting), "own_sum_share") == 0


def test_atoms_that_cancel_explain_nothing() -> None:
    """1.8 a + 1.8 b of a and b that point apart: the fit is exact, and gated."""
    a = normalize(torch.tensor([0.27, 1.0, 0.0]), dim=0)
    b = normalize(torch.tensor([0.27, -1.0, 0.0]), dim=0)
    rows = torch.stack([torch.tensor([1.0, 0.0, 0.0]), a, b, torch.tensor([0.0, 0.0, 1.0])])
    result = measured(rows)
    table = result.tables["latents"].set_index("latent")
    assert table.gated[0]
    assert table.explained[0] == pytest.approx(1)
    assert value(result, "own_sum_share") == 0
    assert value(measured(rows, gate=100.0), "own_sum_share") == 0.25


def test_a_duplicate_names_its_twin_and_does_not_count() -> None:
    rows = torch.eye(5)
    doubled = torch.cat([rows, rows[:2] + 0.01])
    result = measured(doubled)
    table = result.tables["latents"].set_index("latent")
    assert value(result, "duplicates") == 2
    assert value(result, "distinct") == 5
    assert sorted(table.index) == list(range(7))
    twins = table.twin_of[table.twin_of >= 0]
    assert {frozenset(pair) for pair in twins.items()} == {frozenset({0, 5}), frozenset({1, 6})}
    assert table.cosine[twins.index].isna().all()
    assert value(result, "own_sum_share") == 0


def test_permuting_scaling_and_turning_change_nothing() -> None:
    rows = rows_of(12, 8, 3)
    turn = torch.linalg.qr(rows_of(8, 8, 4)).Q
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    names = ("own_sum_share", "nearest_cosine", "own_sum_share_centred", "nearest_cosine_centred")
    first = measured(rows)
    for other in (rows[order], 3 * rows, rows @ turn):
        second = measured(other)
        for name in names:
            assert value(first, name) == pytest.approx(value(second, name), abs=1e-5)


def test_random_rows_are_their_own_null() -> None:
    """Rows without structure lie as random rows of their covariance do."""
    result = measured(rows_of(300, 24, 0))
    assert value(result, "nearest_cosine") == pytest.approx(
        value(result, "nearest_cosine_null"), abs=0.02
    )
    assert value(result, "own_sum_share") == pytest.approx(
        value(result, "own_sum_share_null"), abs=0.08
    )


def test_a_single_latent_has_no_neighbour_and_a_dead_sae_nothing() -> None:
    result = measured(torch.eye(4)[:1])
    assert isinstance(result.scores["nearest_cosine"], Undefined)
    assert value(result, "own_sum_share") == 0
    silent = Codes.from_dense(torch.zeros(5, 4))
    dead = measured(torch.eye(4), codes=silent)
    assert all(isinstance(score, Undefined) for score in dead.scores.values())


def test_the_nearest_other_row_is_found_in_blocks() -> None:
    rows = rows_of(40, 6, 9)
    cosine, nearest = nearest_other(rows, 33, block=80)
    whole, index = nearest_other(rows, 33)
    assert torch.equal(cosine, whole)
    assert torch.equal(nearest, index)


def test_a_gate_that_is_not_positive_is_refused() -> None:
    with pytest.raises(CanonError, match="gate must be positive, got 0"):
        measured(torch.eye(3), gate=0.0)
