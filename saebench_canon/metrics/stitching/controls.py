"""Codes of a random dictionary that replaces the large SAE: stitching where nothing was learnt."""

from __future__ import annotations

import torch
from scipy.special import ndtri
from torch import Tensor

from saebench_canon.kernels.codes import Codes

BLOCK = 2**24  # pre-activations in memory at once


def tied_codes(x: Tensor, rows: Tensor, bias: Tensor, density: Tensor) -> Codes:
    """Codes of rows that encode as they decode: `relu((x − b)·w − t)`, sparse, of x [n, d].

    A normal variable with the mean and variance of a row's pre-activations exceeds the row's
    threshold t with the probability `density` [m].
    """
    dtype = torch.promote_types(rows.dtype, torch.float32)
    rows, bias = rows.to(dtype), bias.to(dtype)
    height = max(1, BLOCK // len(rows))
    first = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    second = first.clone()
    for part in torch.split(x, height):
        z = (part.to(rows) - bias) @ rows.T
        first += z.sum(dim=0, dtype=torch.float64)
        second += (z * z).sum(dim=0, dtype=torch.float64)
    mean = first / len(x)
    spread = (second / len(x) - mean**2).clamp(min=0).sqrt()
    rare = density.double().clamp(1 / (2 * len(x)), 1 - 1 / (2 * len(x)))
    upper = torch.from_numpy(ndtri(1 - rare.cpu().numpy())).to(mean)
    level = (mean + upper * spread).to(dtype)
    parts = [
        Codes.from_dense(((part.to(rows) - bias) @ rows.T - level).relu())
        for part in torch.split(x, height)
    ]
    return Codes.concatenate(parts)
