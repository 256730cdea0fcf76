"""Tokens whose norms are far out are found and told, with their share of the energy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from saebench_canon.inputs.sinks import Sinks, find_sinks, load_sinks, save_sinks

CONTEXT, WINDOWS, D = 32, 50, 12
POSITIONS = torch.arange(CONTEXT).repeat(WINDOWS)


def activations(seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(CONTEXT * WINDOWS, D, generator=g)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("unit", [1e-15, 1.0, 1e8])
def test_ordinary_activations_have_none(known: bool, seed: int, unit: float) -> None:
    x = unit * activations(seed) * (1 + POSITIONS[:, None] / CONTEXT)
    assert find_sinks(x, POSITIONS if known else None) == Sinks()


@pytest.mark.parametrize("unit", [1e-15, 1.0, 1e8])
def test_a_sink_at_position_0_is_named_with_its_share(unit: float) -> None:
    x = activations()
    x[POSITIONS == 0, 0] += 3000
    (far,) = find_sinks(unit * x, POSITIONS).far
    assert (far.position, far.tokens) == ("0", WINDOWS)
    energy = (x.double() - x.double().mean(0)).square().sum(1)
    assert far.share == pytest.approx(float(energy[POSITIONS == 0].sum() / energy.sum()))
    assert far.share > 0.95  # the others lie off the mean, which sinks have pulled
    usual = x[POSITIONS > 0].norm(dim=1).median()
    assert far.times == pytest.approx(3000 / float(usual), rel=0.05)
    ((large, sentence),) = Sinks((far,)).sentences()
    assert large
    assert "50 tokens at position 0 of a window" in sentence
    assert "`skip`" in sentence


@pytest.mark.parametrize("known", [True, False])
def test_single_tokens_far_out_are_counted(known: bool) -> None:
    x = activations()
    far_tokens = [33, 400, 901]  # none at the start of a window
    x[far_tokens] *= 60
    (far,) = find_sinks(x, POSITIONS if known else None).far
    assert (far.position, far.tokens) == ("", 3)
    energy = (x.double() - x.double().mean(0)).square().sum(1)
    assert far.share == pytest.approx(float(energy[far_tokens].sum() / energy.sum()))


def test_a_sink_in_a_file_without_positions_is_found_too() -> None:
    x = activations()
    x[POSITIONS == 0] *= 100
    (far,) = find_sinks(x, None).far
    assert (far.position, far.tokens) == ("", WINDOWS)


def test_a_far_token_among_the_far_is_not_told_twice() -> None:
    x = activations()
    x[POSITIONS == 0] *= 100
    x[0] *= 30
    assert [far.position for far in find_sinks(x, POSITIONS).far] == ["0"]


@pytest.mark.parametrize("x", [torch.zeros(40, 3), torch.ones(40, 3)])
def test_activations_that_do_not_vary_have_none(x: torch.Tensor) -> None:
    assert find_sinks(x, torch.arange(40) % 20) == Sinks()


def test_zeros_at_most_positions() -> None:
    x = torch.zeros(40, 3)
    x[::20] = 5
    sinks = find_sinks(x, torch.arange(40) % 20)
    assert sinks.far[0].position == "0"


def test_they_survive_the_store(tmp_path: Path) -> None:
    x = activations()
    x[POSITIONS == 0] *= 100
    sinks = find_sinks(x, POSITIONS)
    save_sinks(sinks, tmp_path)
    assert load_sinks(tmp_path) == sinks


def test_many_zeros_make_no_other_token_far() -> None:
    x = activations()
    x[: int(0.6 * len(x))] = 0
    assert find_sinks(x, None) == Sinks()
    assert find_sinks(x[torch.randperm(len(x), generator=torch.Generator())], POSITIONS) == Sinks()


def test_an_offset_that_all_tokens_share_hides_no_sink() -> None:
    x = activations()
    far = torch.arange(len(x)) % 40 == 0
    x[far] += 60 * torch.nn.functional.normalize(torch.ones(x.shape[1]), dim=0)
    there = find_sinks(x, None).far
    offset = find_sinks(x + 1000 * torch.eye(x.shape[1])[0], None).far
    assert [one.tokens for one in there] == [one.tokens for one in offset] == [int(far.sum())]
    assert offset[0].share > 0.5
