"""Paths from a small SAE to a large one against the stitched SAE computed at every step."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from brute_force import CodedSAE, TinySAE, cosine, live, mse, random_sae, rebuilt, stitched
from torch import Tensor

from saebench_canon.metrics.stitching.greedy_order import greedy
from saebench_canon.metrics.stitching.interpolation import (
    Graph,
    build_graph,
    paths,
    steps_of,
    union,
)

N, D, M0, M1 = 60, 5, 7, 12
KINDS = ["relu", "topk", "batchtopk", "jumprelu"]


def pair(kind: str, seed: int = 0) -> tuple[Tensor, CodedSAE, CodedSAE]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64) + 3
    small = random_sae(x, M0, kind, generator)
    near = torch.cat([
        small.sae.W_dec[1:5] + 0.2 * torch.randn(4, D, generator=generator, dtype=torch.float64),
        torch.randn(M1 - 4, D, generator=generator, dtype=torch.float64),
    ])  # fmt: skip
    return x, small, random_sae(x, M1, kind, generator, rows=2 * near)


def brute_graph(small: CodedSAE, large: CodedSAE, threshold: float) -> Graph:
    small_latents, large_latents = live(small), live(large)
    near = {
        (i, j)
        for i in small_latents
        for j in large_latents
        if round(cosine(small.sae.W_dec[i], large.sae.W_dec[j]), 6) >= threshold
    }
    components, joined = [], set()
    for first in small_latents:
        if first in joined or all((first, j) not in near for j in large_latents):
            continue
        below, above = {first}, set()
        while True:
            more = {j for i, j in near if i in below} | above
            back = {i for i, j in near if j in more} | below
            if (more, back) == (above, below):
                break
            above, below = more, back
        joined |= below
        components.append((tuple(sorted(below)), tuple(sorted(above))))
    return Graph(
        novel=tuple(j for j in large_latents if all((i, j) not in near for i in small_latents)),
        orphans=tuple(i for i in small_latents if all((i, j) not in near for j in large_latents)),
        components=tuple(components),
    )


def graph_of(small: CodedSAE, large: CodedSAE, threshold: float = 0.7) -> Graph:
    codes = (small.codes, large.codes)
    return build_graph(small.sae.W_dec, large.sae.W_dec, codes[0].live, codes[1].live, threshold)


def shuffled(graph: Graph, seed: int) -> tuple[list[int], list[int]]:
    chance = random.Random(seed)
    novel, swaps = list(graph.novel), list(range(len(graph.components)))
    chance.shuffle(novel)
    chance.shuffle(swaps)
    return novel, swaps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_graph_is_that_of_all_cosines(kind: str, seed: int) -> None:
    _, small, large = pair(kind, seed)
    assert graph_of(small, large) == brute_graph(small, large, 0.7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [1, 50, 10**6])
def test_every_point_is_the_stitched_sae_computed_anew(kind: str, block: int) -> None:
    x, small, large = pair(kind)
    graph = graph_of(small, large)
    assert graph.novel
    assert graph.components
    step_lists = [steps_of(graph, *shuffled(graph, seed)) for seed in range(3)]
    both = union(
        x,
        (small.codes, small.sae.W_dec, small.sae.b_dec),
        (large.codes, large.sae.W_dec, large.sae.b_dec),
    )
    for path in paths(both, step_lists, block=block):
        remaining, added = live(small), []
        assert len(path.mse) == len(path.steps) + 1
        for step_number in range(len(path.mse)):
            if step_number:
                step = path.steps[step_number - 1]
                added = [*added, *step.latents_in]
                remaining = [i for i in remaining if i not in step.latents_out]
            expected = mse(x, stitched(small, large, remaining, added))
            assert float(path.mse[step_number]) == pytest.approx(expected, rel=1e-9)
            active = (small.dense[:, remaining] > 0).sum() + (large.dense[:, added] > 0).sum()
            assert float(path.l0[step_number]) == pytest.approx(float(active) / N)
        assert float(path.mse[0]) == pytest.approx(mse(x, rebuilt(small)))
        assert float(path.mse[-1]) == pytest.approx(mse(x, rebuilt(large)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_greedy_order_takes_the_lowest_error_at_every_step(kind: str) -> None:
    x, small, large = pair(kind)
    graph = graph_of(small, large)
    both = union(
        x,
        (small.codes, small.sae.W_dec, small.sae.b_dec),
        (large.codes, large.sae.W_dec, large.sae.b_dec),
    )
    ordered = greedy(both, graph)
    assert ordered is not None
    novel, swaps = ordered
    assert sorted(novel) == sorted(graph.novel)
    assert sorted(swaps) == list(range(len(graph.components)))
    remaining, added = live(small), []
    for number, latent in enumerate(novel):
        errors = {
            candidate: mse(x, stitched(small, large, remaining, [*added, candidate]))
            for candidate in novel[number:]
        }
        assert errors[latent] == pytest.approx(min(errors.values()))
        added.append(latent)
    for number, component in enumerate(swaps):
        errors = {}
        for candidate in swaps[number:]:
            goes, comes = graph.components[candidate]
            remaining_then = [i for i in remaining if i not in goes]
            errors[candidate] = mse(x, stitched(small, large, remaining_then, [*added, *comes]))
        assert errors[component] == pytest.approx(min(errors.values()))
        goes, comes = graph.components[component]
        remaining, added = [i for i in remaining if i not in goes], [*added, *comes]
    assert greedy(both, graph, limit=10) is None


def test_rows_in_bfloat16_are_added_in_float32() -> None:
    x, small, large = pair("relu")
    graph = graph_of(small, large)
    steps = [steps_of(graph, *shuffled(graph, 0))]

    def followed(dtype: torch.dtype) -> Tensor:
        sides = []
        for example in (small, large):
            halves = example.sae.W_dec.bfloat16().to(dtype), example.sae.b_dec.bfloat16().to(dtype)
            sides.append((example.codes, *halves))
        return paths(union(x, *sides), steps)[0].mse

    torch.testing.assert_close(
        followed(torch.bfloat16), followed(torch.float64), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("biases", ["both", "small", "large", "neither"])
def test_a_massive_mean_that_latents_carry_costs_no_digits(
    monkeypatch: pytest.MonkeyPatch, crowded: bool, biases: str
) -> None:
    monkeypatch.setattr(
        "saebench_canon.metrics.stitching.interpolation.CROWDED", 0.0 if crowded else 1.0
    )
    generator = torch.Generator().manual_seed(4)
    mean = torch.zeros(16, dtype=torch.float64)
    mean[3] = 300.0
    x = torch.randn(200, 16, generator=generator, dtype=torch.float64) + mean

    def carrying(m: int, has: bool) -> CodedSAE:
        example = random_sae(x - mean, m, "relu", generator)
        rows, dense = example.sae.W_dec.clone(), example.dense.clone()
        if not has:  # one latent is always on and brings the mean back
            rows[5] = mean / mean.norm()
            dense[:, 5] = mean.norm() + 0.1 * dense[:, 5]
        bias = example.sae.b_dec + (mean if has else 0)
        return CodedSAE(TinySAE(rows.float(), bias.float()), dense.float().double())

    small = carrying(9, biases in ("both", "small"))
    large = carrying(14, biases in ("both", "large"))
    sides = [(example.codes, example.sae.W_dec, example.sae.b_dec) for example in (small, large)]
    sides = [(replace(codes, values=codes.values.float()), *rest) for codes, *rest in sides]
    graph = build_graph(small.sae.W_dec, large.sae.W_dec, small.codes.live, large.codes.live, 0.7)
    x = x.float()
    (path,) = paths(union(x, *sides), [steps_of(graph, *shuffled(graph, 0))], block=40)
    wide = [
        CodedSAE(TinySAE(example.sae.W_dec.double(), example.sae.b_dec.double()), example.dense)
        for example in (small, large)
    ]
    remaining, added = live(small), []
    for step_number in range(len(path.mse)):
        if step_number:
            added = [*added, *path.steps[step_number - 1].latents_in]
            remaining = [i for i in remaining if i not in path.steps[step_number - 1].latents_out]
        expected = float(((x.double() - stitched(*wide, remaining, added)) ** 2).mean())
        assert float(path.mse[step_number]) == pytest.approx(expected, rel=1e-5)
