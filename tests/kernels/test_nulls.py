"""Random rows have what they are said to have of the dictionary, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.nulls import covariance_matched, covariance_matched_pairs, isotropic
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.seed_matching.assignment import assign, invert
from saebench_canon.metrics.seed_matching.matching import match


@pytest.mark.parametrize(
    ("d", "m", "published"), [(8, 32, 0.64), (64, 256, 0.33), (512, 512, 0.13)]
)
def test_random_rows_match_as_well_as_published(d: int, m: int, published: float) -> None:
    rows = [isotropic(m, d, generator(seed, "test")) for seed in (0, 1)]
    assert match(*rows).mcc == pytest.approx(published, abs=0.02)


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    return rows.mean(0), rows.T.cov(correction=0)


def same_moments(rows: Tensor, null: Tensor, *, tolerance: float = 2e-6) -> None:
    (mean, covariance), (mean_of_null, of_null) = moments(rows), moments(null)
    assert float((of_null - covariance).norm() / covariance.norm()) < tolerance
    assert float((mean_of_null - mean).norm()) < tolerance


@pytest.mark.parametrize("steep", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize(("m", "d"), [(1024, 128), (200, 48), (128, 8)])
def test_the_null_has_mean_and_covariance_of_the_unit_rows_at_unit_norm(
    m: int, d: int, steep: float
) -> None:
    spectrum = torch.arange(1, d + 1, dtype=torch.float64) ** -steep
    rows = unit(torch.randn(m, d, generator=generator(0), dtype=torch.float64) * spectrum + 0.1)
    null = covariance_matched(rows, generator(1))
    torch.testing.assert_close(null.norm(dim=1), torch.ones(m, dtype=torch.float64))
    same_moments(rows, null, tolerance=2e-6 if steep <= 1 else 2e-5)
    assert steep or d == 8 or match(rows, null).mcc < 0.5


def test_another_number_of_rows_has_the_same_moments() -> None:
    rows = unit(torch.randn(90, 6, generator=generator(0), dtype=torch.float64) + 1.0)
    null = covariance_matched(rows, generator(1), count=4_000)
    assert null.shape == (4_000, 6)
    same_moments(rows, null)


def test_hardly_more_rows_than_directions_come_close() -> None:
    rows = isotropic(48, 48, generator(0))
    null = covariance_matched(rows, generator(1))
    torch.testing.assert_close(null.norm(dim=1), torch.ones(48, dtype=torch.float64))
    same_moments(rows, null, tolerance=1e-3)


def test_the_order_of_the_rows_does_not_show_in_the_null() -> None:
    rows = torch.randn(300, 24, generator=generator(0), dtype=torch.float64) * 3
    order = torch.randperm(300, generator=generator(2))
    first, second = (covariance_matched(table, generator(1)) for table in (rows, rows[order]))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-9)


def test_rows_and_encoders_drawn_at_once_stay_related() -> None:
    rows = isotropic(400, 24, generator(0))
    encoders = 5 * (rows + 0.5 * isotropic(400, 24, generator(1)))
    null, encoder_null = covariance_matched_pairs(rows, encoders, generator(2))
    for drawn in (null, encoder_null):
        torch.testing.assert_close(drawn.norm(dim=1), torch.ones(400, dtype=torch.float64))
    same_moments(
        torch.cat([unit(rows), unit(encoders)], dim=1), torch.cat([null, encoder_null], dim=1)
    )
    along = float((unit(rows) * unit(encoders)).sum(dim=1).mean())
    assert float((null * encoder_null).sum(dim=1).mean()) == pytest.approx(along, abs=1e-4)
    tied, same = covariance_matched_pairs(rows, rows * 2, generator(2))
    torch.testing.assert_close(tied, same)


def test_all_rows_alike_have_themselves_for_a_null() -> None:
    null = covariance_matched(torch.ones(5, 3), generator(0))
    torch.testing.assert_close(null, torch.full((5, 3), 3**-0.5, dtype=torch.float64))


def test_matched_rows_match_better_than_isotropic_ones() -> None:
    spectrum = torch.linspace(1, 0.05, 32, dtype=torch.float64)
    draw = torch.randn(128, 32, generator=generator(3), dtype=torch.float64)
    rows = draw * spectrum + 0.5
    nulls = [covariance_matched(rows, generator(seed, "cov")) for seed in (0, 1)]
    plain = [isotropic(128, 32, generator(seed, "iso")) for seed in (0, 1)]
    assert match(*nulls).mcc > match(*plain).mcc + 0.1


def test_more_rows_than_needed_of_a_flat_covariance_are_drawn() -> None:
    rows = torch.eye(4)[:2]
    null = covariance_matched(rows, generator(0), count=5)
    assert null.shape == (5, 4)
    assert torch.allclose(null[:, 2:], torch.zeros(5, 2, dtype=torch.float64), atol=1e-7)


def test_generators_depend_on_seed_and_purpose_only_and_leave_the_global_one_alone() -> None:
    state = torch.random.get_rng_state()
    first, repeated = (isotropic(3, 2, generator(7, "a", 1)) for _ in range(2))
    other_purpose, other_seed = (
        isotropic(3, 2, generator(7, "a", 2)),
        isotropic(3, 2, generator(8, "a", 1)),
    )
    assert torch.equal(first, repeated)
    assert not torch.equal(first, other_purpose)
    assert not torch.equal(first, other_seed)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_assignment_leaves_over_the_rows_that_gain_least() -> None:
    similarity = torch.tensor([[0.9, 0.8], [0.95, 0.1], [0.2, 0.3]])
    matching = assign(similarity)
    assert matching.tolist() == [1, 0, -1]
    assert invert(matching, 2).tolist() == [1, 0]
    assert assign(similarity.T).tolist() == [1, 0]
    assert invert(assign(similarity.T), 3).tolist() == [1, 0, -1]
