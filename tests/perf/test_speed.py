"""What the passes cost, to be read as ratios within one run: `tox -e perf`.

Sizes are of a laptop's morning: d 256, 512 → 1024 latents, 8,192 tokens, L0 about 16.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saebench_canon.kernels.codes import Codes
from saebench_canon.metrics.stitching.metric import stitching
from saebench_canon.plugin.metric import Measurement
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.saes.fold import fold

D, SMALL, LARGE, TOKENS, K = 256, 512, 1024, 8_192, 16


def sae(width: int) -> CanonicalSAE:
    generator = torch.Generator().manual_seed(width)
    rows = torch.randn(width, D, generator=generator)
    b_dec = torch.randn(D, generator=generator) / 10
    return fold(W_enc=rows.T.clone(), W_dec=rows, b_dec=b_dec, activation="topk", k=K)


@pytest.fixture(scope="module")
def setting() -> dict[str, Any]:
    torch.set_num_threads(1)
    x = torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(0))
    small, large = sae(SMALL), sae(LARGE)
    codes = (small.encode_sparse(x), large.encode_sparse(x))
    doc = torch.arange(TOKENS) // 128
    return {"x": x, "doc": doc, "small": small, "large": large, "codes": codes}


@pytest.mark.benchmark(group="a pair of SAEs on the same tokens")
def test_encoding_with_both(benchmark: Any, setting: dict[str, Any]) -> None:
    def encode() -> tuple[Codes, Codes]:
        x = setting["x"]
        return setting["small"].encode_sparse(x), setting["large"].encode_sparse(x)

    small, _ = benchmark(encode)
    assert small.l0 == pytest.approx(K, rel=0.01)


@pytest.mark.benchmark(group="a pair of SAEs on the same tokens")
def test_stitching_every_latent_with_all_its_scores(
    benchmark: Any, setting: dict[str, Any]
) -> None:
    from saebench_canon.plugin.activations import Acts

    acts = Acts(setting["x"], setting["doc"])
    found = benchmark(
        stitching.measure, setting["small"], setting["large"], *setting["codes"], acts
    )
    assert isinstance(found, Measurement)
    assert len(found.tables["latents"]) > 0


@pytest.mark.benchmark(group="a pair of SAEs on the same tokens")
def test_recomputing_the_mse_for_one_latent(benchmark: Any, setting: dict[str, Any]) -> None:
    """Times the number of latents this is what the closed form of the line above saves."""
    small, large = setting["small"], setting["large"]
    codes_small, codes_large = setting["codes"]
    one = torch.zeros(LARGE, dtype=torch.bool)
    one[3] = True

    def recompute() -> float:
        added = codes_large.keep(one).decode(large.W_dec)
        x_hat = codes_small.decode(small.W_dec) + small.b_dec + added
        return float((setting["x"] - x_hat).pow(2).mean())

    assert benchmark(recompute) > 0
