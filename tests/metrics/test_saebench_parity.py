"""SAEBench's `meta_structure` and our `quarter` preset explain the same share of the same decoder.

`tox -e saebench` installs what this takes; docs/decisions/saebench-parity.md says what is compared.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from brute_force import TinySAE
from torch import Tensor

from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.meta_sae import explained_variance
from saebench_canon.kernels.nulls import isotropic
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.meta_sae.metric import meta_sae
from saebench_canon.metrics.meta_sae.settings import MetaTraining
from saebench_canon.plugin.metric import Measurement, Value

pytest.importorskip("sae_bench", reason="sae-bench is not installed; tox -e saebench does that")
from sae_bench.evals.meta_structure import main as upstream
from sae_bench.evals.meta_structure.eval_config import MetaStructureEvalConfig
from sae_lens import StandardSAE, StandardSAEConfig

SEEDS = 4  # on either side
ERRORS = 3  # standard errors of the difference that count as noise
SAME = 0.005  # of explained variance, besides: what two trainings of one mathematics may differ by


@dataclass(frozen=True)
class Mean:
    """The mean over seeds, and its standard error."""

    value: float
    stderr: float


def noise(m: int, d: int, name: str) -> Tensor:
    return torch.randn(m, d, generator=generator(0, "parity", name), dtype=torch.float64)


def sums(m: int, d: int, atoms: int, size: float) -> Tensor:
    """Sums of three of a few atoms, and noise of a size beside an atom's 1."""
    g = generator(0, "parity", "sums")
    table = isotropic(atoms, d, g)
    picks = torch.stack([torch.randperm(atoms, generator=g)[:3] for _ in range(m)])
    return table[picks].sum(dim=1) + noise(m, d, "sums") * size / d**0.5


def anisotropic(m: int, d: int) -> Tensor:
    """Rows about a mean, along axes of sizes from 1 down to a seventh: latents die on them."""
    size = torch.linspace(0, -2, d, dtype=torch.float64).exp()
    return (noise(m, d, "anisotropic") + 0.5) * size


def clusters(m: int, d: int, count: int) -> Tensor:
    """Rows about a few directions, more of them than a batch holds."""
    centres = isotropic(count, d, generator(0, "parity", "clusters"))
    return centres[torch.arange(m) % count] + noise(m, d, "clusters") / d**0.5


DECODERS: dict[str, Callable[[], Tensor]] = {
    "planted sums": lambda: sums(512, 64, atoms=64, size=0.1),
    "noisy sums": lambda: sums(1024, 128, atoms=96, size=1.0),
    "isotropic": lambda: noise(512, 64, "isotropic"),
    "anisotropic": lambda: anisotropic(768, 96),
    "clusters": lambda: clusters(1281, 64, count=100),
}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is reported anywhere, and upstream's seeding leaves no trace."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(state)


def theirs(rows: Tensor, seed: int) -> float:
    """The number that SAEBench's evaluation writes, seeded as its command line seeds."""
    m, d = rows.shape
    sae = StandardSAE(StandardSAEConfig(d_in=d, d_sae=m))
    sae.W_dec.data = rows.clone()
    upstream._set_random_seed(seed)
    found = upstream.run_eval_single_sae("made up", "decoder", sae, told(), "cpu")
    metrics: Any = found.eval_result_metrics.meta_structure
    return float(metrics.decoder_fraction_variance_explained)


def told() -> Any:
    """Upstream's configuration with every default."""
    return MetaStructureEvalConfig()


def ours(rows: Tensor) -> Mean:
    found = meta_sae.measure(
        TinySAE(rows, torch.zeros(rows.shape[1])),
        0,
        preset="quarter",
        holdout=0.0,
        meta_seeds=SEEDS,
    )
    assert isinstance(found, Measurement)
    score = found.scores["explained_variance"]
    assert isinstance(score, Value)
    assert score.stderr is not None
    return Mean(score.value, score.stderr)


@pytest.mark.parametrize("name", DECODERS)
def test_both_explain_the_same_share_within_noise(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    rows = unit(DECODERS[name]()).float()
    seeds = [theirs(rows, seed) for seed in range(SEEDS)]
    upstreams = Mean(statistics.fmean(seeds), statistics.stdev(seeds) / SEEDS**0.5)
    mine = ours(rows)
    between = mine.value - upstreams.value
    allowed = ERRORS * math.hypot(mine.stderr, upstreams.stderr) + SAME
    line = (
        f"{name} {tuple(rows.shape)}: SAEBench {upstreams.value:.4f} ± {upstreams.stderr:.4f}, "
        f"ours {mine.value:.4f} ± {mine.stderr:.4f}, {between:+.4f} of {allowed:.4f} allowed"
    )
    record_property("parity", line)
    print(line)
    assert abs(between) <= allowed, line


@pytest.mark.parametrize("m", [512, 1024, 1281])
def test_the_preset_has_upstreams_numbers(m: int) -> None:
    how, config = MetaTraining(preset="quarter").on(m), told()
    assert how.k == config.k
    assert how.steps == config.train_steps
    assert how.batch == config.train_batch_size
    assert how.lr == config.learning_rate
    assert abs(how.width - m * config.width_ratio) <= 1
    assert config.dead_feature_window > config.train_steps  # no latent is ever revived
    assert config.weight_decay == 0


def test_explained_variance_is_defined_alike() -> None:
    """One trained model of theirs under both definitions; blocks of rows change their choice."""
    rows = (unit(sums(256, 32, atoms=40, size=0.5)) + 0.1).float()
    upstream._set_random_seed(0)
    config = MetaStructureEvalConfig(train_steps=300, train_batch_size=256)
    model, _ = upstream._train_meta_structure_on_decoder(rows, 64, config, "cpu")
    their_number, mse = upstream._decoder_variance_metrics(model, rows, config.eval_batch_size)
    with torch.no_grad():
        rebuilt = model(rows)
    assert 0.1 < their_number < 0.99
    assert explained_variance(rows[None], rebuilt[None], centred=True)[0] == pytest.approx(
        their_number, abs=1e-5
    )
    assert mse == pytest.approx(float((rows - rebuilt).double().pow(2).mean()), rel=1e-5)
