"""How well one SAE reconstructs, at what price, and whether it is fit to be judged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from saebench_canon.kernels.positions import NAMES, groups_of
from saebench_canon.metrics.fidelity.cost import cost
from saebench_canon.metrics.shared.ratios import complement, of_documents
from saebench_canon.plugin.metric import Mark, Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from saebench_canon.inputs.spliced_loss import Losses
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.plugin.activations import Acts
    from saebench_canon.plugin.sae import CanonicalSAE

Number = float | Value | Undefined


@dataclass(frozen=True)
class Limits:
    """What an SAE must keep to be judged; `max_l0` in parts of d, from d = `least_d` on."""

    min_explained_variance: float = 0.5
    max_l0: float = 0.25
    min_live: float = 0.5
    least_d: int = 64  # below it a high L0 is a caveat


AT_POSITIONS = (
    "explained_variance_at_0", "explained_variance_at_1_to_3", "explained_variance_at_4_to_15",
    "explained_variance_from_16",
)  # fmt: skip


@metric(
    of="sae",
    version=3,
    cost=cost,
    roles=("reconstruction",),
    scores=[
        Score("mse", better="lower", help="Squared error, mean over tokens and dimensions."),
        Score(
            "explained_variance",
            better="higher",
            null="pca_explained_variance",
            help="1 − squared error / squared distance from the mean, over the whole data.",
            headline=True,
        ),
        Score(
            "pca_explained_variance",
            help="Explained variance of as many principal components as the L0.",
        ),
        *(
            Score(
                name,
                better="higher",
                help=f"Explained variance at position {where} of a window, from its own mean.",
            )
            for name, where in zip(AT_POSITIONS, NAMES, strict=True)
        ),
        Score("cosine", better="higher", help="Mean cosine of activation and reconstruction."),
        Score("l0", digits=1, help="Mean number of active latents on a token.", headline=True),
        Score(
            "dead_share",
            better="lower",
            help="Share of latents never active on this data.",
            headline=True,
            counts_dead=True,
        ),
        Score("duplicates", digits=0, help="Live latents that are duplicates (cosine ≥ .95)."),
        Score(
            "mean_row_norm",
            help="Length of the mean of the live unit rows without duplicates; long where rows "
            "share a direction.",
        ),
        Score(
            "encoder_alignment",
            better="higher",
            help="Mean cosine of each live latent's encoder with its decoder row.",
        ),
        Score("shrinkage", help="E[x̂·x] / E[‖x̂‖²]; above 1, reconstructions are too short."),
        Score(
            "loss_recovered",
            better="higher",
            help="Share of the loss that zero-ablation adds which the reconstruction avoids.",
            headline=True,
        ),
    ],
)
def fidelity(
    sae: CanonicalSAE,
    codes: Codes,
    acts: Acts,
    loss: Losses | None = None,
    positions: Tensor | None = None,
    *,
    limits: Limits = Limits(),
) -> Measurement:
    """How well one SAE reconstructs the activations, and at what price.

    An SAE is marked unfit to be judged when its explained variance is below
    `min_explained_variance`, its L0 is `max_l0`·d or more (below d = `least_d` that is a caveat),
    or its share of live latents is below `min_live`. Duplicates make no SAE unfit: where latents
    are compared, one stands for all. Standard errors are the delta method's over documents.
    """
    import pandas as pd

    from saebench_canon.kernels.reconstruction import reconstruction_sums
    from saebench_canon.kernels.resampling import documents, ratio

    codes = codes.to(sae.W_dec.device)
    index, count = documents(acts.doc)
    sums = reconstruction_sums(
        acts.x, index, count, codes, sae.W_dec, sae.b_dec, components=round(codes.l0)
    )
    constant = Undefined("the activations do not vary")
    varies = bool(sums.spread.sum() > 0)
    live = codes.live
    scores: dict[str, Number] = {
        "mse": of_documents(ratio(sums.error, sums.tokens * sae.d)),
        "explained_variance": complement(ratio(sums.error, sums.spread)) if varies else constant,
        "pca_explained_variance": of_documents(ratio(sums.principal, sums.spread))
        if varies
        else constant,
        **_by_position(acts, positions, codes, sae),
        "cosine": of_documents(ratio(sums.cosine, sums.tokens)),
        "l0": of_documents(ratio(sums.active, sums.tokens)),
        "dead_share": 1 - float(live.double().mean()),
        "shrinkage": (
            of_documents(ratio(sums.product, sums.square))
            if bool(sums.square.sum() > 0)
            else Undefined("every reconstruction is 0")
        ),
        **_of_rows(sae, codes),
        "loss_recovered": _loss_recovered(loss),
    }
    density = codes.counts.double() / len(codes)
    table = pd.DataFrame({"latent": range(sae.width), "density": density.cpu().numpy()})
    return Measurement(
        scores=scores,
        tables={"latents": table} | ({} if loss is None else {"losses": _losses(loss)}),
        marks=(*_unfit(scores, limits, sae.d), *_caveats(scores)),
    )


def _by_position(
    acts: Acts, positions: Tensor | None, codes: Codes, sae: CanonicalSAE
) -> dict[str, Number]:
    """Explained variance of the tokens at each group of positions, about the group's own mean."""
    if positions is None:
        return dict.fromkeys(AT_POSITIONS, Undefined("positions in windows are not known"))
    import torch

    from saebench_canon.kernels.reconstruction import error_by_group
    from saebench_canon.kernels.resampling import documents, ratio

    index, count = documents(acts.doc)
    group = groups_of(positions)
    error, spread = error_by_group(
        acts.x, index, count, group, len(NAMES), codes, sae.W_dec, sae.b_dec
    )
    scores: dict[str, Number] = {}
    for at, name in enumerate(AT_POSITIONS):
        present = torch.zeros(count, dtype=torch.bool)
        present[index[group == at]] = True
        present = present.to(error.device)
        if not bool(present.any()):
            scores[name] = Undefined(f"no token at position {NAMES[at]} counts")
        elif not bool(spread[present, at].sum() > 0):
            scores[name] = Undefined(f"the activations at position {NAMES[at]} do not vary")
        else:
            scores[name] = complement(ratio(error[present, at], spread[present, at]))
    return scores


def _loss_recovered(loss: Losses | None) -> Number:
    """(CE_zero − CE_sae) / (CE_zero − CE_clean) as a ratio of totals over documents with a loss."""
    if loss is None:
        return Undefined("no language model at hand")
    from saebench_canon.kernels.resampling import ratio, reaches_zero

    counted = loss.count > 0
    if not bool(counted.any()):
        return Undefined("no token has a loss")
    zero, sae, clean = (
        sums[counted].double() for sums in (loss.ce_zero, loss.ce_sae, loss.ce_clean)
    )
    if reaches_zero(ratio(zero - clean, loss.count[counted])):
        return Undefined("zero-ablation costs no loss beyond noise")
    return of_documents(ratio(zero - sae, zero - clean))


def _losses(loss: Losses) -> pd.DataFrame:
    """Cross-entropy in nats a token of the model as it is, with the SAE, and ablated."""
    import pandas as pd

    from saebench_canon.kernels.resampling import ratio

    counted = loss.count > 0
    totals = {
        "clean": loss.ce_clean,
        "sae": loss.ce_sae,
        "zero": loss.ce_zero,
        "mean": loss.ce_mean,
    }
    ratios = (
        {name: ratio(sums[counted], loss.count[counted]) for name, sums in totals.items()}
        if bool(counted.any())
        else {}
    )
    return pd.DataFrame(
        {
            "model": list(ratios),
            "cross_entropy": [estimate.value for estimate in ratios.values()],
            "stderr": [
                math.nan if estimate.stderr is None else estimate.stderr
                for estimate in ratios.values()
            ],
            "documents": [estimate.documents for estimate in ratios.values()],
        }
    )


def _of_rows(sae: CanonicalSAE, codes: Codes) -> dict[str, Number]:
    """What the live rows show: duplicates, a common direction, and how encoders lie to them."""
    from saebench_canon.kernels.cosine import unit
    from saebench_canon.metrics.shared.dictionary import dictionary_of

    dictionary = dictionary_of(sae, codes)
    none = Undefined("no latent is live")
    alignment: Number = Undefined("the encoder is not linear")
    if len(dictionary) == 0:
        alignment = none
    elif sae.encoder is not None:
        live = dictionary.every_latent
        encoders = unit(sae.encoder.T.cpu()[live])
        alignment = float((encoders * unit(sae.W_dec.cpu()[live])).sum(dim=1).mean())
    return {
        "duplicates": float(dictionary.duplicates),
        "mean_row_norm": dictionary.mean_norm if len(dictionary) else none,
        "encoder_alignment": alignment,
    }


def _unfit(scores: dict[str, Number], limits: Limits, d: int) -> Iterator[Mark]:
    explained, l0, dead = scores["explained_variance"], scores["l0"], scores["dead_share"]
    assert isinstance(l0, Value)
    assert isinstance(dead, float)
    if isinstance(explained, Undefined):
        yield Mark("unfit", f"explained variance is undefined: {explained.reason}")
    elif _number(explained) < limits.min_explained_variance:
        low = f"explained variance {_number(explained):.3g}"
        yield Mark("unfit", f"{low} is below {limits.min_explained_variance:g}")
    if l0.value >= limits.max_l0 * d:
        kind: Literal["unfit", "caveat"] = "unfit" if d >= limits.least_d else "caveat"
        yield Mark(kind, f"L0 {l0.value:.1f} is not below {limits.max_l0 * d:g}")
    if 1 - dead < limits.min_live:
        yield Mark("unfit", f"live share {1 - dead:.2f} is below {limits.min_live:g}")


def _caveats(scores: dict[str, Number]) -> Iterator[Mark]:
    explained, principal = scores["explained_variance"], scores["pca_explained_variance"]
    if isinstance(explained, Undefined) or isinstance(principal, Undefined):
        return
    if _number(explained) < _number(principal):
        yield Mark(
            "caveat",
            f"explains less ({_number(explained):.2f}) than as many principal components "
            f"({_number(principal):.2f})",
        )


def _number(score: float | Value) -> float:
    return score.value if isinstance(score, Value) else score
