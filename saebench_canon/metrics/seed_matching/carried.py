"""How much of an SAE's explained variance the latents that two other seeds find carry (ours)."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.random_generators import generator
from saebench_canon.kernels.reconstruction import chunks
from saebench_canon.metrics.seed_matching.code_products import products
from saebench_canon.metrics.seed_matching.found_again import Found
from saebench_canon.metrics.shared.dictionary import Dictionary

CONSTANT = 1e-12  # variance, as a share of the mean square, up to which a sum does not vary

Triples = dict[tuple[int, ...], float]


def carried(
    found: Found,
    member: int,
    dictionary: Dictionary,
    rows: Tensor,
    codes: Codes,
    x: Tensor,
    *,
    members: int,
    seed: int,
) -> tuple[Triples, Triples] | None:
    """What latents that two others find explain of x, over what all live latents explain.

    By member and two others, p < q; then the same of equally many latents drawn at random. `rows`
    [m, d] is the decoder, `x` [n, d]. None if the live latents explain nothing.
    """
    pairs = list(combinations([other for other in range(members) if other != member], 2))
    chosen = [torch.ones(len(dictionary), dtype=torch.bool)]
    for p, q in pairs:
        both = found[member, p] & found[member, q]
        draws = generator(seed, "seed_matching", "carried", member, p, q)
        chosen += [both, both[torch.randperm(len(both), generator=draws)]]
    masks = torch.stack([_latents(mask, dictionary, codes.width) for mask in chosen])
    whole, *parts = explained(masks, rows, codes, x).tolist()
    if whole <= 0:
        return None
    keys = [(member, p, q) for p, q in pairs]
    shares = [part / whole for part in parts]
    return dict(zip(keys, shares[::2], strict=True)), dict(zip(keys, shares[1::2], strict=True))


def _latents(representatives: Tensor, dictionary: Dictionary, width: int) -> Tensor:
    """The chosen representatives [n] with their duplicates, as a mask of all latents."""
    chosen = torch.zeros(width, dtype=torch.bool)
    chosen[dictionary.latents[representatives]] = True
    latents = torch.zeros(width, dtype=torch.bool)
    latents[dictionary.every_latent] = chosen[dictionary.owners]
    return latents


def explained(masks: Tensor, rows: Tensor, codes: Codes, x: Tensor) -> Tensor:
    """The variance of x [n, d] that Σ f_i w_i of chosen latents explains, for each mask [k, m].

    At its best scale and offset: Cov(x, x̂)² / Var(x̂), both summed over dimensions; 0 where x̂ does
    not vary. The sums are taken from moments of pairs of latents, so more masks cost next to
    nothing. Returns [k] float64.
    """
    codes, rows = codes.to("cpu"), rows.double().cpu()
    chosen, n = masks.double(), len(codes)
    covariance = _covariance_with(x, codes, rows)
    square = torch.zeros(len(masks), dtype=torch.float64)
    for part, block in products(codes, codes):
        block *= rows[part] @ rows.T
        square += (chosen[:, part] * (chosen @ block.T)).sum(dim=1) / n
    means = chosen * (codes.column_sums() / n) @ rows  # [k, d]
    variance = square - (means**2).sum(dim=1)
    varies = variance > CONSTANT * square
    return torch.where(varies, (chosen @ covariance) ** 2 / torch.where(varies, variance, 1), 0)


def _covariance_with(x: Tensor, codes: Codes, rows: Tensor) -> Tensor:
    """Covariance of each latent's codes with the activations along its row, [m] float64."""
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    for _, part, _ in chunks(x, codes, title="mean activation"):
        total += part.sum(dim=0)
    mean = total / len(x)
    covariance = torch.zeros(len(rows), dtype=torch.float64)
    for _, part, (active,) in chunks(x, codes, title="variance of latents"):
        covariance += (active.transposed_matmul(part - mean) * rows).sum(dim=1)
    return covariance / len(x)
