"""The path from the small SAE to the large one in the language model's cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.metrics.shared.pairs import CodedPair
from saebench_canon.metrics.shared.ratios import complement, of_documents
from saebench_canon.metrics.stitching_loss.cost import cost
from saebench_canon.plugin.metric import Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from saebench_canon.data.language_model import LanguageModel
    from saebench_canon.inputs.spliced_loss import Losses
    from saebench_canon.metrics.stitching.interpolation import PathStep
    from saebench_canon.plugin.sae import CanonicalSAE

    Replace = Callable[[Tensor], Tensor]

Number = float | Value | Undefined
ORDER = 0  # the random order of the path, the first one of `stitching`


@metric(
    of="pair",
    version=1,
    cost=cost,
    scores=[
        Score("small_loss", better="lower", help="Cross-entropy with the smaller SAE in place."),
        Score("large_loss", better="lower", help="Cross-entropy with the larger SAE in place."),
        Score(
            "loss_gain",
            better="lower",
            help="Relative drop of the loss that the smaller SAE adds to the model's when all "
            "novel latents are added.",
        ),
    ],
)
def stitching_loss(
    both: CodedPair,
    lm: LanguageModel,
    loss_with: Callable[[Replace], Tensor],
    small_loss: Losses,
    large_loss: Losses,
    seed: int = 0,
    *,
    threshold: float = 0.7,
    points: int = 9,
) -> Measurement:
    """What the latents of a larger SAE are worth to the language model.

    The path of `stitching` from the small SAE to the large one, in its first random order under
    the same seed and θ (`threshold`). The stitched reconstruction replaces the activations of the
    model at `points` evenly spaced steps, and at the step where all novel latents are added.
    """
    _check(threshold, points)
    from saebench_canon.kernels.resampling import ratio
    from saebench_canon.metrics.stitching.interpolation import build_graph, random_order, steps_of
    from saebench_canon.metrics.stitching.pairs import pair_of

    counted = small_loss.count > 0
    if not bool(counted.any()):
        none = Undefined("no token has a loss")
        return Measurement(dict.fromkeys(("small_loss", "large_loss", "loss_gain"), none))
    scores: dict[str, Number] = {
        name: of_documents(ratio(loss.ce_sae[counted], loss.count[counted]))
        for name, loss in (("small_loss", small_loss), ("large_loss", large_loss))
    }
    small, large = both.small, both.large
    pair = pair_of(small, large, both.small_codes, both.large_codes)
    if len(pair.rows0) == 0 or len(pair.rows1) == 0:
        size = "smaller" if len(pair.rows0) == 0 else "larger"
        none = Undefined(f"no latent of the {size} SAE is live")
        return Measurement({**scores, "loss_gain": none})
    graph = build_graph(small.W_dec, large.W_dec, pair.live0, pair.live1, threshold)
    steps = steps_of(graph, *random_order(graph, seed, ORDER))
    # both ends are the losses of fidelity, computed once for all metrics
    losses = {0: small_loss.ce_sae, len(steps): large_loss.ce_sae}
    saes = small.to(lm.device), large.to(lm.device)
    for step in sorted({*evenly(len(steps), points), len(graph.novel)} - set(losses)):
        inside = latents_after(pair.live0, steps[:step], large.width)
        losses[step] = loss_with(stitched(*saes, *inside))
    scores["loss_gain"] = _gain(losses[len(graph.novel)], small_loss)
    return Measurement(scores, tables={"path": _table(losses, steps, small_loss)})


def evenly(last: int, points: int) -> list[int]:
    """Evenly spaced steps from 0 to the last, both included; all steps where there are no more."""
    count = min(points, last + 1)
    return [round(last * number / (count - 1)) for number in range(count)]


def latents_after(live: Tensor, steps: Sequence[PathStep], width: int) -> tuple[Tensor, Tensor]:
    """Which latents are present after the steps: small ones [m0] bool, large ones [width] bool.

    `live` [m0] bool are the small latents that the path begins with.
    """
    remaining, added = live.clone(), live.new_zeros(width)
    for step in steps:
        remaining[list(step.latents_out)] = False
        added[list(step.latents_in)] = True
    return remaining, added


def stitched(small: CanonicalSAE, large: CanonicalSAE, remaining: Tensor, added: Tensor) -> Replace:
    """The stitched SAE (eq. 5) of small latents `remaining` [m0] bool and large ones `added` bool.

    Returns a function from activations [n, d] to reconstructions, computed in float32 or wider.
    """
    import torch

    from saebench_canon.metrics.stitching.adding import share_of_small, stitched_bias

    dtype = torch.promote_types(torch.promote_types(small.W_dec.dtype, large.W_dec.dtype),
                                torch.float32)  # fmt: skip
    alpha = share_of_small(int(remaining.sum()), int(added.sum()))
    bias = stitched_bias(small.b_dec, large.b_dec, alpha).to(dtype)
    parts = [
        (sae, sae.W_dec.to(dtype), chosen.to(bias.device))
        for sae, chosen in ((small, remaining), (large, added))
        if bool(chosen.any())
    ]

    def reconstruct(x: Tensor) -> Tensor:
        out = bias.expand(len(x), -1)
        for sae, rows, chosen in parts:
            codes = sae.encode_sparse(x.to(sae.W_dec)).keep(chosen)
            out = out + codes.decode(rows)
        return out.to(x)

    return reconstruct


def _gain(ce_novel: Tensor, of_small: Losses) -> Number:
    """1 − (CE(SAE 0 + novel) − CE_clean) / (CE(SAE 0) − CE_clean), a ratio of totals."""
    from saebench_canon.kernels.resampling import ratio, reaches_zero

    counted = of_small.count > 0
    clean, small, novel = (
        sums[counted].double() for sums in (of_small.ce_clean, of_small.ce_sae, ce_novel)
    )
    if reaches_zero(ratio(small - clean, of_small.count[counted])):
        return Undefined("the smaller SAE costs no loss beyond noise")
    return complement(ratio(novel - clean, small - clean))


def _table(losses: dict[int, Tensor], steps: Sequence[PathStep], baseline: Losses) -> pd.DataFrame:
    """The points of the path, one per row."""
    import math

    import pandas as pd

    from saebench_canon.kernels.resampling import ratio, reaches_zero

    counted = baseline.count > 0
    count, zero, clean = (
        sums[counted].double() for sums in (baseline.count, baseline.ce_zero, baseline.ce_clean)
    )
    recoverable = not reaches_zero(ratio(zero - clean, count))
    points = sorted(losses)
    totals = [losses[point][counted].double() for point in points]
    return pd.DataFrame({
        "seed": ORDER,
        "order": "random",
        "phase": ["start" if point == 0 else steps[point - 1].phase for point in points],
        "step": points,
        "loss": [ratio(total, count).value for total in totals],
        "loss_recovered": [
            ratio(zero - total, zero - clean).value if recoverable else math.nan for total in totals
        ],
    })  # fmt: skip


def _check(threshold: float, points: int) -> None:
    if not -1 <= threshold <= 1:
        raise CanonError(f"stitching_loss: threshold must be a cosine, −1 to 1, got {threshold}")
    if points < 2:
        raise CanonError(f"stitching_loss: points must be 2 or more, got {points}")
