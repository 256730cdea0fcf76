"""What a training step costs beside SAELens' own and a dense one, as ratios within one run.

The same contenders in turns, which other work on the machine disturbs less, and the explained
variance that each reaches: `scripts/training_cost.py`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saebench_canon.kernels.meta_sae import train
from saebench_canon.kernels.meta_training import Training
from saebench_canon.kernels.nulls import isotropic
from saebench_canon.kernels.random_generators import generator

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import training_cost as cost

NAMES = ("ours", "dense, fused Adam", "SAELens, fused Adam")
META = f"a step: meta-SAE, d {cost.META_D}, {cost.META.width} latents, batch {cost.META.batch}"


@pytest.fixture(scope="module")
def rows() -> Tensor:
    return cost.decoder_rows()


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return cost.planted(16_384, cost.SAE_D, 600, 8, offset=0.3)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(before)


def steps(benchmark: Any, step: Any, rows: Tensor, size: int, *, rounds: int) -> None:
    """Time single steps, each on a batch of its own, after two to warm up."""
    draw = cost.batches(rows, size)
    benchmark.pedantic(
        step, setup=lambda: ((next(draw),), {}), rounds=rounds, warmup_rounds=2, iterations=1
    )
    assert all(torch.isfinite(each).all() for each in step.weights())


@pytest.mark.benchmark(group=META)
@pytest.mark.parametrize("name", NAMES)
def test_a_meta_saes_step(benchmark: Any, rows: Tensor, name: str) -> None:
    contender = cost.meta_contenders(rows)[name]
    steps(benchmark, contender, rows, cost.META.batch, rounds=6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", cost.WIDTHS)
@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_an_saes_step(benchmark: Any, tokens: Tensor, kind: str, width: int, name: str) -> None:
    torch.set_num_threads(1)  # as each worker of a run has
    benchmark.group = f"a step: {kind} SAE, d {cost.SAE_D}, {width} latents, k {cost.SAE_K}"
    contender = cost.sae_contenders(kind, width, tokens)[name]
    steps(benchmark, contender, tokens, cost.SAE_BATCH, rounds=60)


@pytest.mark.benchmark(group="300 steps of small meta-SAEs, d 128, k 4, one dictionary and four")
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_small_fits(benchmark: Any, width: int, count: int) -> None:
    torch.set_num_threads(1)
    table = torch.stack(
        [isotropic(round(3.2 * width), 128, generator(seed)) for seed in range(count)]
    ).float()
    how = Training(width=width, k=4, steps=300, batch=1024, lr=5e-4)
    model = benchmark.pedantic(
        lambda: train(table, how, generator(0), title="a benchmark"), rounds=3, warmup_rounds=1
    )
    assert model.curve_loss is not None
    assert (model.curve_loss[-1] < model.curve_loss[0]).all()
