"""Adding latents of a larger SAE to a smaller one (Leask et al. 2025, eq. 5 and 6, Fig. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.reconstruction import CHUNK, chunks


@dataclass(frozen=True, eq=False)
class Stitched:
    """Sums of one pass over the data, for adding large latents to the small SAE.

    Per-document sums [docs] float64 of squared errors: of the small SAE, of the large one, and of
    the stitched output with the chosen latents; `tokens` [docs]. `small_fit` and `large_fit`
    [docs, 2] hold Σ (x−b)·a and Σ ‖a‖² of what latents add to the bias, a = x̂ − b. Moments over
    all tokens, for the closed form: `first` [m1] Σ f, `second` [m1] Σ f², `along` [m1] Σ f r·w,
    `residual` [d] Σ r.
    """

    tokens: Tensor
    small: Tensor
    large: Tensor
    stitched: Tensor
    small_fit: Tensor
    large_fit: Tensor
    first: Tensor
    second: Tensor
    along: Tensor
    residual: Tensor


def share_of_small(small: int, large: int) -> float:
    """α of eq. 5: the small SAE's share of the latents, 1 when there are none at all."""
    return small / (small + large) if small + large else 1.0


def stitched_bias(small: Tensor, large: Tensor, alpha: float) -> Tensor:
    """The bias α b_0 + (1−α) b_1 of eq. 5, exact at both ends; [d] float64."""
    return alpha * small.double() + (1 - alpha) * large.double()


def stitch(
    x: Tensor,
    index: Tensor,
    count: int,
    small: tuple[Codes, Tensor, Tensor],
    large: tuple[Codes, Tensor, Tensor],
    added: Tensor,
    *,
    remaining: Tensor | None = None,
    size: int = CHUNK,
) -> Stitched:
    """One pass over x [n, d] with both SAEs' codes, decoder rows [m, d] and biases [d].

    The stitched output holds the large latents `added` [m1] bool and the small ones `remaining`
    [m0] bool (all by default); only live ones count. `index` [n] is each token's document of
    `count`.
    """
    (codes0, rows0, bias0), (codes1, rows1, bias1) = small, large
    dtype = torch.promote_types(torch.promote_types(rows0.dtype, rows1.dtype), torch.float32)
    rows0, rows1, bias0, bias1 = (tensor.to(dtype) for tensor in (rows0, rows1, bias0, bias1))
    added = added & codes1.live
    remaining = codes0.live if remaining is None else remaining & codes0.live
    everything = bool((remaining == codes0.live).all())
    alpha = share_of_small(int(remaining.sum()), int(added.sum()))
    bias = stitched_bias(bias0, bias1, alpha).to(dtype)
    index = index.to(rows0.device)
    sums = torch.zeros(count, 8, dtype=torch.float64, device=rows0.device)
    along = sums.new_zeros(len(rows1))
    residual = sums.new_zeros(rows0.shape[1])
    parts = chunks(x, codes0, codes1, title="stitching", size=size, dtype=dtype)
    for part, true, (active0, active1) in parts:
        inside0 = active0.decode(rows0)
        error = true - inside0 - bias0
        # the large SAE's output in two parts; the stitched output contains the first
        inside1 = active1.keep(added).decode(rows1)
        rest1 = active1.keep(~added).decode(rows1)
        fits = [*_fit(true - bias0, inside0), *_fit(true - bias1, inside1 + rest1)]
        if not everything:
            inside0 = active0.keep(remaining).decode(rows0)
        values = [
            torch.ones(len(true), dtype=torch.float64, device=error.device),
            _square(error),
            _square(true - inside1 - rest1 - bias1),
            _square(true - inside0 - inside1 - bias),
            *fits,
        ]
        sums.index_add_(0, index[part], torch.stack(values, dim=1))
        along += row_dots(active1.transposed_matmul(error), rows1)
        residual += error.sum(dim=0, dtype=torch.float64)
    tokens, of_small, of_large, of_stitched = sums[:, :4].unbind(dim=1)
    if everything and not bool(added.any()):
        of_stitched = of_small  # another order of the same sums would differ by rounding
    return Stitched(
        tokens=tokens,
        small=of_small,
        large=of_large,
        stitched=of_stitched,
        small_fit=sums[:, 4:6],
        large_fit=sums[:, 6:8],
        first=codes1.column_sums(1),
        second=codes1.column_sums(2),
        along=along,
        residual=residual,
    )


def row_dots(rows: Tensor, others: Tensor) -> Tensor:
    """The inner product of each row with its counterpart, [m, d] and [m, d] to [m] float64."""
    products: Tensor = torch.einsum("md,md->m", rows, others)
    return products.double()


def _square(error: Tensor) -> Tensor:
    """‖error‖² of every token of [n, d], in float64."""
    norms: Tensor = torch.linalg.vector_norm(error, dim=1)
    return norms.double().square()


def _fit(target: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """The inner product of every token of [n, d] with its counterpart, and ‖added‖², in float64."""
    return torch.einsum("nd,nd->n", target, added).double(), _square(added)


def best_factor(fit: Tensor) -> float:
    """The factor ≥ 0 on all codes of an SAE with the least error; `fit` as in `Stitched`."""
    along, size = fit.sum(dim=0).tolist()
    return max(along / size, 0.0) if size > 0 else 1.0


def rescaled(error: Tensor, fit: Tensor) -> Tensor:
    """Squared errors [docs] of an SAE when its codes are multiplied by their best factor.

    `error` [docs] is that of the codes as they are, `fit` [docs, 2] as in `Stitched`. A run that
    shrinks all its codes alike thus counts as no worse than one that does not.
    """
    factor, (along, size) = best_factor(fit), fit.unbind(dim=1)
    return (error + 2 * (1 - factor) * along - (1 - factor**2) * size).clamp(min=0)


def delta_mse(moments: Stitched, rows: Tensor, shift: Tensor) -> Tensor:
    """Change in the small SAE's MSE from adding each large latent alone, [m1] (Fig. 4).

    `rows` [m1, d] are the large decoder's, `shift` [d] is δ = (1−α)(b_1−b_0) with α = m_0/(m_0+1)
    under eq. 5, or 0 with the bias fixed at b_0:
    `( E[f²]‖w‖² − 2 E[f (r−δ)]·w + ‖δ‖² − 2 E[r]·δ ) / d`.
    """
    n, rows, shift = moments.tokens.sum(), rows.double(), shift.double()
    of_bias = shift @ shift - 2 * (moments.residual / n) @ shift
    along = moments.along - moments.first * (rows @ shift)
    return (moments.second / n * (rows**2).sum(dim=1) - 2 * along / n + of_bias) / rows.shape[1]
