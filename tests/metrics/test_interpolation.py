"""Paths from a small SAE to a large one against the stitched SAE computed at every step."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from brute_force import Made, TinySAE, cosine, live, made, mse, rebuilt, stitched
from torch import Tensor

from saebench_canon.metrics.stitching.greedy import greedy
from saebench_canon.metrics.stitching.interpolation import Graph, graph, paths, steps_of, union

N, D, M0, M1 = 60, 5, 7, 12
KINDS = ["relu", "topk", "batchtopk", "jumprelu"]


def pair(kind: str, seed: int = 0) -> tuple[Tensor, Made, Made]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64) + 3
    small = made(x, M0, kind, generator)
    near = torch.cat([
        small.sae.W_dec[1:5] + 0.2 * torch.randn(4, D, generator=generator, dtype=torch.float64),
        torch.randn(M1 - 4, D, generator=generator, dtype=torch.float64),
    ])  # fmt: skip
    return x, small, made(x, M1, kind, generator, rows=2 * near)


def brute_graph(small: Made, large: Made, threshold: float) -> Graph:
    zero, one = live(small), live(large)
    near = {
        (i, j)
        for i in zero
        for j in one
        if round(cosine(small.sae.W_dec[i], large.sae.W_dec[j]), 6) >= threshold
    }
    components, seen = [], set()
    for first in zero:
        if first in seen or all((first, j) not in near for j in one):
            continue
        below, above = {first}, set()
        while True:
            more = {j for i, j in near if i in below} | above
            back = {i for i, j in near if j in more} | below
            if (more, back) == (above, below):
                break
            above, below = more, back
        seen |= below
        components.append((tuple(sorted(below)), tuple(sorted(above))))
    return Graph(
        novel=tuple(j for j in one if all((i, j) not in near for i in zero)),
        orphans=tuple(i for i in zero if all((i, j) not in near for j in one)),
        components=tuple(components),
    )


def found(small: Made, large: Made, threshold: float = 0.7) -> Graph:
    codes = (small.codes, large.codes)
    return graph(small.sae.W_dec, large.sae.W_dec, codes[0].live, codes[1].live, threshold)


def shuffled(of: Graph, seed: int) -> tuple[list[int], list[int]]:
    chance = random.Random(seed)
    novel, swaps = list(of.novel), list(range(len(of.components)))
    chance.shuffle(novel)
    chance.shuffle(swaps)
    return novel, swaps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_graph_is_that_of_all_cosines(kind: str, seed: int) -> None:
    _, small, large = pair(kind, seed)
    assert found(small, large) == brute_graph(small, large, 0.7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [1, 50, 10**6])
def test_every_point_is_the_stitched_sae_computed_anew(kind: str, block: int) -> None:
    x, small, large = pair(kind)
    of = found(small, large)
    assert of.novel
    assert of.components
    many = [steps_of(of, *shuffled(of, seed)) for seed in range(3)]
    both = union(
        x,
        (small.codes, small.sae.W_dec, small.sae.b_dec),
        (large.codes, large.sae.W_dec, large.sae.b_dec),
    )
    for path in paths(both, many, block=block):
        kept, added = live(small), []
        assert len(path.mse) == len(path.steps) + 1
        for at in range(len(path.mse)):
            if at:
                step = path.steps[at - 1]
                added = [*added, *step.latents_in]
                kept = [i for i in kept if i not in step.latents_out]
            whole = mse(x, stitched(small, large, kept, added))
            assert float(path.mse[at]) == pytest.approx(whole, rel=1e-9)
            active = (small.dense[:, kept] > 0).sum() + (large.dense[:, added] > 0).sum()
            assert float(path.l0[at]) == pytest.approx(float(active) / N)
        assert float(path.mse[0]) == pytest.approx(mse(x, rebuilt(small)))
        assert float(path.mse[-1]) == pytest.approx(mse(x, rebuilt(large)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_greedy_order_takes_the_lowest_error_at_every_step(kind: str) -> None:
    x, small, large = pair(kind)
    of = found(small, large)
    both = union(
        x,
        (small.codes, small.sae.W_dec, small.sae.b_dec),
        (large.codes, large.sae.W_dec, large.sae.b_dec),
    )
    ordered = greedy(both, of)
    assert ordered is not None
    novel, swaps = ordered
    assert sorted(novel) == sorted(of.novel)
    assert sorted(swaps) == list(range(len(of.components)))
    kept, added = live(small), []
    for at, latent in enumerate(novel):
        errors = {each: mse(x, stitched(small, large, kept, [*added, each])) for each in novel[at:]}
        assert errors[latent] == pytest.approx(min(errors.values()))
        added.append(latent)
    for at, component in enumerate(swaps):
        errors = {}
        for each in swaps[at:]:
            goes, comes = of.components[each]
            left = [i for i in kept if i not in goes]
            errors[each] = mse(x, stitched(small, large, left, [*added, *comes]))
        assert errors[component] == pytest.approx(min(errors.values()))
        goes, comes = of.components[component]
        kept, added = [i for i in kept if i not in goes], [*added, *comes]
    assert greedy(both, of, limit=10) is None


def test_rows_in_bfloat16_are_added_in_float32() -> None:
    x, small, large = pair("relu")
    of = found(small, large)
    steps = [steps_of(of, *shuffled(of, 0))]

    def followed(dtype: torch.dtype) -> Tensor:
        sides = []
        for each in (small, large):
            halves = each.sae.W_dec.bfloat16().to(dtype), each.sae.b_dec.bfloat16().to(dtype)
            sides.append((each.codes, *halves))
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

    def carrying(m: int, has: bool) -> Made:
        each = made(x - mean, m, "relu", generator)
        rows, dense = each.sae.W_dec.clone(), each.dense.clone()
        if not has:  # one latent is always on and brings the mean back
            rows[5] = mean / mean.norm()
            dense[:, 5] = mean.norm() + 0.1 * dense[:, 5]
        bias = each.sae.b_dec + (mean if has else 0)
        return Made(TinySAE(rows.float(), bias.float()), dense.float().double())

    small = carrying(9, biases in ("both", "small"))
    large = carrying(14, biases in ("both", "large"))
    sides = [(each.codes, each.sae.W_dec, each.sae.b_dec) for each in (small, large)]
    sides = [(replace(codes, values=codes.values.float()), *rest) for codes, *rest in sides]
    of = graph(small.sae.W_dec, large.sae.W_dec, small.codes.live, large.codes.live, 0.7)
    x = x.float()
    (path,) = paths(union(x, *sides), [steps_of(of, *shuffled(of, 0))], block=40)
    wide = [
        Made(TinySAE(e.sae.W_dec.double(), e.sae.b_dec.double()), e.dense) for e in (small, large)
    ]
    kept, added = live(small), []
    for at in range(len(path.mse)):
        if at:
            added = [*added, *path.steps[at - 1].latents_in]
            kept = [i for i in kept if i not in path.steps[at - 1].latents_out]
        whole = float(((x.double() - stitched(*wide, kept, added)) ** 2).mean())
        assert float(path.mse[at]) == pytest.approx(whole, rel=1e-5)
