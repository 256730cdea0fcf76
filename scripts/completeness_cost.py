"""What completeness costs beside encoding the data once, as ratios within one run.

    python scripts/completeness_cost.py [--threads 2] [--tokens 32768] [--pairs 1536:3072 …]
    python scripts/completeness_cost.py --cosines        # 98,304 × 49,152 rows; minutes

E is the time to encode the tokens with both SAEs: matrix product, activation, selection. SAEs are
top-k over planted directions at d 768, L0 32. docs/performance.md has a run.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import psutil
import torch
from tabulate import tabulate
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import BLOCK, max_cosine
from saebench_canon.metrics.stitching.adding import delta_mse, stitch
from saebench_canon.metrics.stitching.interpolation import (
    Graph,
    build_graph,
    paths,
    steps_of,
    union,
)
from saebench_canon.metrics.stitching.roc import auc
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.saes.fold import fold

D, K, DOCUMENT = 768, 32, 128


def planted(small: int, large: int, tokens: int) -> tuple[Tensor, CanonicalSAE, CanonicalSAE]:
    """Activations made of the large SAE's directions, of which the small one has the first."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(large, D, generator=generator), dim=1)
    x = torch.zeros(tokens, D)
    often = 1 / torch.arange(1, large + 1).float() ** 0.7
    for _ in range(24):
        chosen = torch.multinomial(often, tokens, replacement=True, generator=generator)
        x += rows[chosen] * (1 + torch.rand(tokens, 1, generator=generator))
    near = rows[:small] + 0.02 * torch.randn(small, D, generator=generator)

    def sae(directions: Tensor) -> CanonicalSAE:
        bias = torch.randn(D, generator=generator) / 10
        return fold(
            W_enc=directions.T.clone(), W_dec=directions, b_dec=bias, activation="topk", k=K
        )

    return x, sae(near), sae(rows)


def seconds(work: Callable[[], Any], times: int = 3) -> float:
    """The median of several timings."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def grown(work: Callable[[], Any]) -> float:
    """By how many MiB the process grew at most while it worked."""
    process, done, peak = psutil.Process(), Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return max(0, peak[0] - before) / 2**20


def an_order(found: Graph, seed: int) -> Any:
    """A path in one random order."""
    chance = random.Random(seed)
    novel, swaps = list(found.novel), list(range(len(found.components)))
    chance.shuffle(novel)
    chance.shuffle(swaps)
    return steps_of(found, novel, swaps)


def pair_costs(small: int, large: int, tokens: int) -> list[tuple[str, float, float]]:
    """What each part takes, in E, and by how many MiB the process grows."""
    x, one, other = planted(small, large, tokens)
    rows: list[tuple[str, float, float]] = []
    encode = seconds(lambda: (one.encode_sparse(x), other.encode_sparse(x)))
    codes0, codes1 = one.encode_sparse(x), other.encode_sparse(x)
    rows.append((f"encoding once, E = {encode:.2f} s", 1.0, 0.0))
    first, second = (codes0, one.W_dec, one.b_dec), (codes1, other.W_dec, other.b_dec)
    index = torch.arange(tokens) // DOCUMENT
    count = int(index[-1]) + 1

    def every_latent() -> None:
        passed = stitch(x, index, count, first, second, codes1.live)
        shift = (other.b_dec - one.b_dec).double() / (small + 1)
        cosine, _ = max_cosine(other.W_dec, one.W_dec)
        for each in (shift, torch.zeros_like(shift)):
            auc(cosine, delta_mse(passed, other.W_dec, each) < 0)

    taken = seconds(every_latent)
    rows.append(("ΔMSE of every latent, both biases, scores", taken / encode, grown(every_latent)))
    again = one_latent(x, codes0, codes1, one, other) * large
    rows.append(("… by recomputing the MSE for each latent", again / encode, 0.0))
    rows.append(("    times what the closed form takes", again / taken, 0.0))
    joined = [union(x, first, second)]
    of = [build_graph(one.W_dec, other.W_dec, codes0.live, codes1.live, 0.7)]

    def ready() -> None:
        joined[0] = union(x, first, second)
        of[0] = build_graph(one.W_dec, other.W_dec, codes0.live, codes1.live, 0.7)

    before = seconds(ready)
    single, five = [an_order(of[0], 0)], [an_order(of[0], seed) for seed in range(5)]
    steps = len(single[0])
    alone = before + seconds(lambda: paths(joined[0], single))
    rows.append((f"one whole path of {steps} steps", alone / encode,
                 grown(lambda: (ready(), paths(joined[0], single)))))  # fmt: skip
    many = before + seconds(lambda: paths(joined[0], five))
    rows.append(("five paths, for each", many / 5 / encode, 0.0))
    few = [steps_of(Graph(of[0].novel[:8], (), ()), list(of[0].novel[:8]), [])]
    short = before + seconds(lambda: paths(joined[0], few))
    rows.append(("a path of 8 steps", short / encode, 0.0))
    half = tokens // 2
    halves = [union(x[:half], *((c.rows(0, half), w, b) for c, w, b in (first, second)))]
    less = seconds(lambda: paths(halves[0], single))
    rows.append(("one path on half of the tokens, of the whole's", less * 1.0
                 / seconds(lambda: paths(joined[0], single)), 0.0))  # fmt: skip
    return rows


def one_latent(
    x: Tensor, codes0: Codes, codes1: Codes, one: CanonicalSAE, other: CanonicalSAE
) -> float:
    """Seconds to recompute the stitched SAE's MSE with one latent added, of a few."""

    def recompute(latent: int) -> float:
        chosen = torch.zeros(other.width, dtype=torch.bool)
        chosen[latent] = True
        added = codes1.keep(chosen).decode(other.W_dec)
        return float((x - codes0.decode(one.W_dec) - one.b_dec - added).pow(2).mean())

    return seconds(lambda: recompute(3), times=5)


def cosine_costs(rows: int = 98_304, others: int = 49_152) -> list[tuple[str, float, float]]:
    """Largest cosines against the bare matrix product, in blocks of the same size."""
    generator = torch.Generator().manual_seed(0)
    left = torch.nn.functional.normalize(torch.randn(rows, D, generator=generator), dim=1)
    right = torch.nn.functional.normalize(torch.randn(others, D, generator=generator), dim=1)

    def bare() -> None:
        for part in torch.split(left, BLOCK // others):
            _ = part @ right.T

    product = seconds(bare, times=1)
    found = [0.0]

    def largest() -> None:
        start = time.perf_counter()
        max_cosine(left, right)
        found[0] = time.perf_counter() - start

    memory = grown(largest)
    return [
        (f"matrix product of {rows:,} × {others:,} rows, {product:.0f} s", 1.0, 0.0),
        ("largest cosines", found[0] / product, memory),
    ]


def main() -> None:
    """Print the costs that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--pairs", nargs="*", default=["1536:3072", "3072:12288"])
    parser.add_argument("--cosines", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.cosines:
        print(tabulate(cosine_costs(), headers=["", "ratio", "MiB more"], floatfmt=".2f"))
        return
    for pair in options.pairs:
        small, large = map(int, pair.split(":"))
        print(f"{small} → {large}, d {D}, {options.tokens} tokens, {options.threads} threads")
        costs = pair_costs(small, large, options.tokens)
        print(tabulate(costs, headers=["", "in E", "MiB more"], floatfmt=".2f"), end="\n\n")


if __name__ == "__main__":
    main()
