"""A smaller SAE with latents of a larger one, each at the scale that fits best (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.reconstruction import chunks
from saebench_canon.metrics.stitching.adding import row_dots

PAIRS = 2**26  # pairs of active latents that the fit uses at most; beyond, it takes fewer tokens
BLOCK = 2**22  # entries of W Wᵀ in memory at once
STEPS = 1000  # of the fit at most; it stops when the loss no longer falls


@dataclass(frozen=True, eq=False)
class Inserted:
    """Squared errors by document [docs] float64 without and with the latents, at their scales.

    `scales` [m1] are 0 for latents that were not inserted. `scored` [docs] bool are the documents
    that the scales were not fitted on; gains are measured on those alone.
    """

    without: Tensor
    inserted: Tensor
    scales: Tensor
    scored: Tensor


def insert_at_best_scales(
    x: Tensor,
    index: Tensor,
    count: int,
    small: tuple[Codes, Tensor, Tensor],
    large: tuple[Codes, Tensor],
    chosen: Tensor,
) -> Inserted:
    """The small SAE with the chosen large latents [m1] bool at non-negative least-squares scales.

    The scales are fitted on every other document and used on all: `x̂ = x̂₀ + Σ s_i f_i w_i`. The
    result does not depend on how a run scales its codes. `index` [n] is each token's document of
    `count`; with one document nothing is scored.
    """
    codes1, rows1 = large
    fitted_on = torch.arange(count) % 2 == 0
    scales = torch.zeros(codes1.width, dtype=torch.float64)
    chosen = chosen.cpu() & codes1.live.cpu()
    codes = codes1.keep(chosen.to(codes1.indices.device))
    if bool(chosen.any()):
        tokens = _within(codes, fitted_on[index])
        scales[chosen] = _fit(x, small, codes, rows1, tokens, chosen)
    scaled = rows1 * scales.to(rows1)[:, None]
    sums = torch.zeros(count, 2, dtype=torch.float64)
    for part, error, active in _residuals(x, small, codes, rows1.dtype):
        after = error - active.decode(scaled.to(error))
        errors = [torch.linalg.vector_norm(e, dim=1).double() ** 2 for e in (error, after)]
        sums.index_add_(0, index[part], torch.stack(errors, dim=1).cpu())
    return Inserted(sums[:, 0], sums[:, 1], scales, ~fitted_on)


def _residuals(x: Tensor, small: tuple[Codes, Tensor, Tensor], codes: Codes, dtype: Any) -> Any:
    """The small SAE's residual of each token, with the codes of the latents to insert."""
    codes0, rows0, bias0 = small
    dtype = torch.promote_types(torch.promote_types(rows0.dtype, dtype), torch.float32)
    rows0, bias0 = rows0.to(dtype), bias0.to(dtype)
    for part, true, (active0, active) in chunks(x, codes0, codes, title="inserting", dtype=dtype):
        yield part, true - active0.decode(rows0) - bias0, active


def _within(codes: Codes, allowed: Tensor) -> Tensor:
    """The first of the allowed tokens, as many as `PAIRS` pairs of latents permit."""
    pairs = codes.indptr.diff().cpu().double() ** 2 * allowed
    return allowed & (pairs.cumsum(0) <= PAIRS)


def _fit(
    x: Tensor,
    small: tuple[Codes, Tensor, Tensor],
    codes: Codes,
    rows1: Tensor,
    tokens: Tensor,
    chosen: Tensor,
) -> Tensor:
    """The least-squares scales ≥ 0 of the chosen latents on the tokens [n] bool."""
    along = torch.zeros(codes.width, dtype=torch.float64)
    for part, error, active in _residuals(x, small, codes, rows1.dtype):
        used_tokens = tokens[part].to(error)
        along += row_dots(
            active.transposed_matmul(error * used_tokens[:, None]), rows1.to(error)
        ).cpu()
    target = along[chosen].numpy()
    column = torch.cumsum(chosen, 0) - 1
    token = codes.token_ids().cpu()
    counted = tokens[token]
    matrix: Any = csr_matrix(
        (
            codes.values.double().cpu()[counted].numpy(),
            (token[counted].numpy(), column[codes.indices.long().cpu()[counted]].numpy()),
        ),
        shape=(len(codes), int(chosen.sum())),
    )
    gram: Any = (matrix.T @ matrix).tocsr()
    rows = rows1[chosen.to(rows1.device)].float().cpu().numpy()
    height = max(1, BLOCK // len(rows))
    for start in range(0, len(rows), height):  # K = (FᵀF) ∘ (W Wᵀ), a block of rows at a time
        stop = min(start + height, len(rows))
        part = slice(gram.indptr[start], gram.indptr[stop])
        row = np.repeat(np.arange(stop - start), np.diff(gram.indptr[start : stop + 1]))
        gram.data[part] *= (rows[start:stop] @ rows.T)[row, gram.indices[part]]
    return torch.from_numpy(_non_negative(gram, target))


def _non_negative(gram: Any, target: Any) -> Any:
    """The s ≥ 0 that minimises `sᵀ gram s − 2 s·target`, in units where the diagonal is 1."""
    size = np.sqrt(gram.diagonal())
    active = size > 0
    unit = np.where(active, size, 1.0)
    goal = target / unit
    scale = float(np.abs(goal).max(initial=0.0))
    if scale == 0:
        return np.zeros(len(target))

    goal = goal / scale  # the unknowns are y = s · unit / scale: the tolerances then have no unit

    def loss(y: Any) -> tuple[float, Any]:
        pulled = (gram @ (y / unit)) / unit
        return float(y @ pulled - 2 * y @ goal), 2 * (pulled - goal)

    start = np.clip(goal, 0, None) * active
    bounds = [(0.0, None if varies else 0.0) for varies in active]
    options: Any = {"maxiter": STEPS, "maxfun": 2 * STEPS, "ftol": 1e-12, "gtol": 1e-9}
    solution = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options)
    return solution.x * scale / unit
