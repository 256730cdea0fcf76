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
    from saebench_canon.inputs.splice import Losses
    from saebench_canon.metrics.stitching.interpolation import Step
    from saebench_canon.plugin.sae import CanonicalSAE

    Replace = Callable[[Tensor], Tensor]

Number = float | Value | Undefined
ORDER = 0  # the random order that is followed, the first of `stitching`'s


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
            help="Drop of the loss that the smaller SAE adds to the model's, relative, when all "
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
    the same seed and θ (`threshold`), with the stitched reconstruction put into the model at so
    many `points`, evenly over the steps, and where all novel latents are in.
    """
    _check(threshold, points)
    from saebench_canon.kernels.resampling import ratio
    from saebench_canon.metrics.stitching.interpolation import graph, random_order, steps_of
    from saebench_canon.metrics.stitching.on_rows import pair_of

    counted = small_loss.count > 0
    if not bool(counted.any()):
        none = Undefined("no token has a loss")
        return Measurement(dict.fromkeys(("small_loss", "large_loss", "loss_gain"), none))
    scores: dict[str, Number] = {
        name: of_documents(ratio(each.ce_sae[counted], each.count[counted]))
        for name, each in (("small_loss", small_loss), ("large_loss", large_loss))
    }
    small, large = both.small, both.large
    pair = pair_of(small, large, both.small_codes, both.large_codes)
    if len(pair.rows0) == 0 or len(pair.rows1) == 0:
        size = "smaller" if len(pair.rows0) == 0 else "larger"
        none = Undefined(f"no latent of the {size} SAE is live")
        return Measurement({**scores, "loss_gain": none})
    found = graph(small.W_dec, large.W_dec, pair.live0, pair.live1, threshold)
    steps = steps_of(found, *random_order(found, seed, ORDER))
    # both ends are fidelity's own losses, made once for all metrics
    losses = {0: small_loss.ce_sae, len(steps): large_loss.ce_sae}
    here, there = small.to(lm.device), large.to(lm.device)
    for at in sorted({*evenly(len(steps), points), len(found.novel)} - set(losses)):
        inside = latents_after(pair.live0, steps[:at], large.width)
        losses[at] = loss_with(stitched(here, there, *inside))
    scores["loss_gain"] = _gain(losses[len(found.novel)], small_loss)
    return Measurement(scores, tables={"path": _table(losses, steps, small_loss)})


def evenly(last: int, points: int) -> list[int]:
    """So many of the steps 0 to the last, both included; all of them where they are no more."""
    count = min(points, last + 1)
    return [round(last * at / (count - 1)) for at in range(count)]


def latents_after(live: Tensor, steps: Sequence[Step], width: int) -> tuple[Tensor, Tensor]:
    """Which latents are there after the steps: small ones [m0] bool, large ones [width] bool.

    `live` [m0] bool are the small latents that the path begins with.
    """
    kept, added = live.clone(), live.new_zeros(width)
    for step in steps:
        kept[list(step.latents_out)] = False
        added[list(step.latents_in)] = True
    return kept, added


def stitched(small: CanonicalSAE, large: CanonicalSAE, kept: Tensor, added: Tensor) -> Replace:
    """The stitched SAE (eq. 5) with live latents `kept` [m0] bool of one and `added` of the other.

    What it returns takes activations [n, d] to reconstructions, in float32 or wider.
    """
    import torch

    from saebench_canon.metrics.stitching.gains import share_of_small, stitched_bias

    dtype = torch.promote_types(torch.promote_types(small.W_dec.dtype, large.W_dec.dtype),
                                torch.float32)  # fmt: skip
    alpha = share_of_small(int(kept.sum()), int(added.sum()))
    bias = stitched_bias(small.b_dec, large.b_dec, alpha).to(dtype)
    parts = [
        (sae, sae.W_dec.to(dtype), chosen.to(bias.device))
        for sae, chosen in ((small, kept), (large, added))
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
        each[counted].double() for each in (of_small.ce_clean, of_small.ce_sae, ce_novel)
    )
    if reaches_zero(ratio(small - clean, of_small.count[counted])):
        return Undefined("the smaller SAE costs no loss beyond noise")
    return complement(ratio(novel - clean, small - clean))


def _table(losses: dict[int, Tensor], steps: Sequence[Step], baseline: Losses) -> pd.DataFrame:
    """The points of the path, one a row."""
    import math

    import pandas as pd

    from saebench_canon.kernels.resampling import ratio, reaches_zero

    counted = baseline.count > 0
    count, zero, clean = (
        each[counted].double() for each in (baseline.count, baseline.ce_zero, baseline.ce_clean)
    )
    recoverable = not reaches_zero(ratio(zero - clean, count))
    at = sorted(losses)
    sums = [losses[each][counted].double() for each in at]
    return pd.DataFrame({
        "seed": ORDER,
        "order": "random",
        "phase": ["start" if each == 0 else steps[each - 1].phase for each in at],
        "step": at,
        "loss": [ratio(each, count).value for each in sums],
        "loss_recovered": [
            ratio(zero - each, zero - clean).value if recoverable else math.nan for each in sums
        ],
    })  # fmt: skip


def _check(threshold: float, points: int) -> None:
    if not -1 <= threshold <= 1:
        raise CanonError(f"stitching_loss: threshold = {threshold} is not a cosine from −1 to 1")
    if points < 2:
        raise CanonError(f"stitching_loss: points = {points} is not 2 or more")
