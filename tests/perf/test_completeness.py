"""What completeness costs beside encoding once, to be read as ratios within one run.

Sizes of the issue's smaller pair, d 768, 1536 → 3072, 32,768 tokens, L0 32; the larger pair, memory
and largest cosines are in `scripts/completeness_cost.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from saebench_canon.metrics.stitching.adding import stitch
from saebench_canon.metrics.stitching.interpolation import build_graph, paths, union

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from completeness_cost import DOCUMENT, an_order, one_latent, planted

SMALL, LARGE, TOKENS = 1536, 3072, 32_768
GROUP = f"d 768, {SMALL} → {LARGE}, {TOKENS} tokens, L0 32"


@pytest.fixture(scope="module")
def pair() -> dict[str, Any]:
    torch.set_num_threads(2)
    x, one, other = planted(SMALL, LARGE, TOKENS)
    codes = one.encode_sparse(x), other.encode_sparse(x)
    sides = (codes[0], one.W_dec, one.b_dec), (codes[1], other.W_dec, other.b_dec)
    return {"x": x, "saes": (one, other), "codes": codes, "sides": sides}


def run(benchmark: Any, work: Any) -> Any:
    return benchmark.pedantic(work, rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group=GROUP)
def test_encoding_with_both(benchmark: Any, pair: dict[str, Any]) -> None:
    codes = run(benchmark, lambda: [sae.encode_sparse(pair["x"]) for sae in pair["saes"]])
    assert codes[0].l0 == pytest.approx(32, rel=0.01)


@pytest.mark.benchmark(group=GROUP)
def test_every_latents_change_of_the_error(benchmark: Any, pair: dict[str, Any]) -> None:
    index = torch.arange(TOKENS) // DOCUMENT
    count = int(index[-1]) + 1
    live = pair["codes"][1].live
    passed = run(benchmark, lambda: stitch(pair["x"], index, count, *pair["sides"], live))
    assert float(passed.tokens.sum()) == TOKENS


@pytest.mark.benchmark(group=GROUP)
def test_one_latents_change_by_recomputing(benchmark: Any, pair: dict[str, Any]) -> None:
    """Times the number of latents this is what the line above saves."""
    assert run(benchmark, lambda: one_latent(pair["x"], *pair["codes"], *pair["saes"])) > 0


@pytest.mark.benchmark(group=GROUP)
@pytest.mark.parametrize("orders", [1, 5])
def test_whole_paths(benchmark: Any, pair: dict[str, Any], orders: int) -> None:
    one, other = pair["saes"]
    codes0, codes1 = pair["codes"]

    def follow() -> list[Any]:
        both = union(pair["x"], *pair["sides"])
        found = build_graph(one.W_dec, other.W_dec, codes0.live, codes1.live, 0.7)
        return paths(both, [an_order(found, seed) for seed in range(orders)])

    assert len(run(benchmark, follow)) == orders
