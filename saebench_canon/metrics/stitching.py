"""What a larger SAE has that a smaller one lacks (Leask et al. 2025, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.metrics.estimates import complement, of_documents
from saebench_canon.scores import Mark, Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    from torch import Tensor

    from saebench_canon.acts import Acts
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.sae import CanonicalSAE

Number = float | Value | Undefined

NEEDS_DATA = (
    "small_mse", "large_mse", "novel_gain", "helpful_share", "helpful_share_eq5", "auc", "auc_eq5",
    "best_threshold",
)  # fmt: skip
NEEDS_ROWS = ("novel_share", "orphan_share", "span_residual")


@metric(
    of="pair",
    version=1,
    scores=[
        Score("small_mse", better="lower", help="MSE of the smaller SAE."),
        Score("large_mse", better="lower", help="MSE of the larger SAE."),
        Score(
            "novel_share",
            better="lower",
            help="Share of live large latents whose best cosine with a small one is below θ.",
        ),
        Score(
            "novel_gain",
            better="lower",
            help="Drop of the smaller SAE's MSE, relative, when all novel latents are added.",
        ),
        Score(
            "helpful_share",
            better="lower",
            help="Share of live large latents that lower the MSE when added alone, bias fixed.",
        ),
        Score("helpful_share_eq5", better="lower", help="The same with the bias of eq. 5."),
        Score("auc", help="How well a low best cosine predicts that a latent helps, bias fixed."),
        Score("auc_eq5", help="The same with the bias of eq. 5."),
        Score("best_threshold", help="θ that predicts best, by Youden's J, bias fixed."),
        Score(
            "orphan_share",
            help="Share of live small latents without a large one of cosine θ or more.",
        ),
        Score(
            "span_residual",
            better="lower",
            help="Share of a large row left by non-negative pursuit with 4 small rows, mean.",
        ),
    ],
)
def stitching(
    small: CanonicalSAE,
    large: CanonicalSAE,
    small_codes: Codes | None = None,
    large_codes: Codes | None = None,
    acts: Acts | None = None,
    *,
    threshold: float = 0.7,
    span_atoms: int = 4,
) -> Measurement:
    """What a larger SAE has that a smaller one lacks.

    `threshold` is θ: a large latent is novel iff its largest cosine with a live small one is below
    it. `span_atoms` is the number of small rows that a large one may be composed of.
    """
    import pandas as pd
    import torch

    if not -1 <= threshold <= 1:
        raise CanonError(f"stitching: threshold = {threshold} is not a cosine from −1 to 1")
    if span_atoms < 1:
        raise CanonError(f"stitching: span_atoms = {span_atoms} is not 1 or more")
    from saebench_canon.kernels.cosine import max_cosine, tied
    from saebench_canon.kernels.nnomp import pursue

    device = small.W_dec.device
    live0, live1 = (
        torch.ones(each.width, dtype=torch.bool, device=device) if c is None else c.live.to(device)
        for each, c in ((small, small_codes), (large, large_codes))
    )
    rows0, rows1 = small.W_dec[live0], large.W_dec.to(device)[live1]
    if len(rows0) == 0 or len(rows1) == 0:
        reason = f"no latent of the {'smaller' if len(rows0) == 0 else 'larger'} SAE is live"
        return Measurement({name: Undefined(reason) for name in NEEDS_DATA + NEEDS_ROWS})
    cosine, nearest = max_cosine(rows1, rows0)
    cosine = tied(cosine)
    novel = cosine < threshold
    back, _ = max_cosine(rows0, rows1)
    residual = pursue(rows1, rows0, count=span_atoms).residual
    latents = live1.nonzero()[:, 0]
    nan = torch.full((len(latents),), torch.nan, dtype=torch.float64)
    columns: dict[str, Tensor] = {
        "latent": latents,
        "max_cos": cosine,
        "nearest": live0.nonzero()[:, 0][nearest],
        "density": nan,
        "delta_mse": nan,
        "delta_mse_fixed_bias": nan,
        "span_residual": residual,
        "novel": novel,
    }
    scores: dict[str, Number] = {
        "novel_share": float(novel.double().mean()),
        "orphan_share": float((tied(back) < threshold).double().mean()),
        "span_residual": float(residual.mean()),
    }
    marks: tuple[Mark, ...] = ()
    if small_codes is None or large_codes is None or acts is None:
        scores |= {name: Undefined("needs activations") for name in NEEDS_DATA}
        marks = (Mark("note", "no activations: every latent counts as live"),)
    else:
        added = live1.clone()
        added[latents] = novel
        measured, more = _on_data(
            small, large, small_codes.to(device), large_codes.to(device), acts, added, cosine
        )
        scores |= measured
        columns |= more
    table = pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
    return Measurement(scores=scores, tables={"latents": table}, marks=marks)


def _on_data(
    small: CanonicalSAE,
    large: CanonicalSAE,
    small_codes: Codes,
    large_codes: Codes,
    acts: Acts,
    novel: Tensor,
    cosine: Tensor,
) -> tuple[dict[str, Number], dict[str, Tensor]]:
    """The scores and the columns that take a pass over the activations; `novel` [m1] bool."""
    import torch

    from saebench_canon.kernels.resampling import documents, ratio
    from saebench_canon.kernels.stitching import (
        auc,
        best_threshold,
        delta_mse,
        share_of_small,
        stitch,
    )  # fmt: skip

    device = small.W_dec.device
    rows1, bias1 = large.W_dec.to(device), large.b_dec.to(device)
    index, count = documents(acts.doc)
    passed = stitch(
        acts.x,
        index,
        count,
        (small_codes, small.W_dec, small.b_dec),
        (large_codes, rows1, bias1),
        novel,
    )
    live = large_codes.live
    alpha = share_of_small(int(small_codes.live.sum()), 1)
    shift = (1 - alpha) * (bias1.double() - small.b_dec.double())
    eq5 = delta_mse(passed, rows1, shift)[live]
    fixed = delta_mse(passed, rows1, torch.zeros_like(shift))[live]
    cells = passed.tokens * small.d
    agree = Undefined("adding any latent changes the MSE in the same direction")
    none = Undefined("the smaller SAE makes no error")
    ranked = {name: auc(cosine, delta < 0) for name, delta in (("auc", fixed), ("auc_eq5", eq5))}
    best = best_threshold(cosine, fixed < 0)
    exact = bool(passed.small.sum() == 0)
    scores: dict[str, Number] = {
        "small_mse": of_documents(ratio(passed.small, cells)),
        "large_mse": of_documents(ratio(passed.large, cells)),
        "novel_gain": none if exact else complement(ratio(passed.stitched, passed.small)),
        "helpful_share": float((fixed < 0).double().mean()),
        "helpful_share_eq5": float((eq5 < 0).double().mean()),
        "best_threshold": agree if best is None else best,
        **{name: agree if found is None else found for name, found in ranked.items()},
    }
    density = large_codes.counts[live].double() / len(large_codes)
    return scores, {"density": density, "delta_mse": eq5, "delta_mse_fixed_bias": fixed}
