"""Random rows have what they are said to have of the dictionary, and nothing else."""

from __future__ import annotations

import pytest
import torch

from saebench_canon.kernels.assignment import assign, invert
from saebench_canon.kernels.matching import match
from saebench_canon.kernels.nulls import covariance_matched, isotropic
from saebench_canon.kernels.seeds import generator


@pytest.mark.parametrize(
    ("d", "m", "published"), [(8, 32, 0.64), (64, 256, 0.33), (512, 512, 0.13)]
)
def test_random_rows_match_as_well_as_published(d: int, m: int, published: float) -> None:
    rows = [isotropic(m, d, generator(seed, "test")) for seed in (0, 1)]
    assert match(*rows).mcc == pytest.approx(published, abs=0.02)


def test_the_matched_rows_have_mean_and_covariance_of_the_rows() -> None:
    g = generator(0, "rows")
    mixing = torch.randn(6, 6, generator=g, dtype=torch.float64)
    rows = torch.randn(400, 6, generator=g, dtype=torch.float64) @ mixing + 1.0
    rows = rows / rows.norm(dim=1, keepdim=True)
    null = covariance_matched(rows, generator(1), count=40_000)
    torch.testing.assert_close(null.norm(dim=1), torch.ones(40_000, dtype=torch.float64))
    torch.testing.assert_close(null.mean(0), rows.mean(0), atol=0.06, rtol=0)
    shape = torch.corrcoef(torch.stack([null.T.cov().flatten(), rows.T.cov().flatten()]))[0, 1]
    assert shape > 0.98


def test_as_many_rows_have_the_moments_of_the_rows_but_for_their_norms() -> None:
    rows = isotropic(300, 64, generator(0))
    null = covariance_matched(rows, generator(1))
    found = torch.linalg.eigvalsh(null.T.cov())
    expected = torch.linalg.eigvalsh(rows.T.cov())
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0)
    assert match(rows, null).mcc < 0.5


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
    first, again = (isotropic(3, 2, generator(7, "a", 1)) for _ in range(2))
    other, later = isotropic(3, 2, generator(7, "a", 2)), isotropic(3, 2, generator(8, "a", 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, later)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_assignment_leaves_over_the_rows_that_gain_least() -> None:
    similarity = torch.tensor([[0.9, 0.8], [0.95, 0.1], [0.2, 0.3]])
    matching = assign(similarity)
    assert matching.tolist() == [1, 0, -1]
    assert invert(matching, 2).tolist() == [1, 0]
    assert assign(similarity.T).tolist() == [1, 0]
    assert invert(assign(similarity.T), 3).tolist() == [1, 0, -1]
