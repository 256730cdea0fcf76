"""Whether another training seed finds the same latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.metrics.seed_matching.cost import cost
from saebench_canon.metrics.shared.pairs import NO_CODES
from saebench_canon.plugin.metric import Measurement, Score, Undefined, Value, metric
from saebench_canon.progress import track
from saebench_canon.tables.stats import jackknife_stderr

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from saebench_canon.kernels.codes import Codes
    from saebench_canon.metrics.seed_matching.matching import Match
    from saebench_canon.plugin.sae import CanonicalSAE

Pair = tuple[int, int]

OF_ROWS = ("mcc", "mcc_abs", "mmcs", "coverage", "null_mcc", "null_isotropic")
OF_ENCODERS = ("shared_share", "shared_share_strict", "null_shared")


@metric(
    of="group",
    version=1,
    cost=cost,
    scores=[
        Score(
            "mcc",
            better="higher",
            null="null_mcc",
            help="Mean cosine of live decoder rows under the best one-to-one assignment.",
            headline=True,
        ),
        Score("mcc_abs", better="higher", help="The same with absolute cosines."),
        Score(
            "shared_share",
            better="higher",
            null="null_shared",
            help="Share of live latents whose counterpart agrees in decoder and encoder.",
            headline=True,
        ),
        Score(
            "shared_share_strict",
            better="higher",
            help="Share for which assignments on decoders and on encoders name the same latent.",
        ),
        Score("mmcs", better="higher", help="Mean of each row's largest cosine, both ways."),
        Score("coverage", better="higher", help="Share of rows with a cosine above θ, both ways."),
        Score(
            "code_correlation",
            better="higher",
            help="Mean correlation of matched latents' codes on the same tokens.",
        ),
        Score("null_mcc", help="MCC of random rows of the same mean and covariance."),
        Score("null_isotropic", help="MCC of random rows of uniform direction."),
        Score("null_shared", help="Shared share of random rows and encoders, drawn together."),
    ],
)
def seed_matching(
    saes: tuple[CanonicalSAE, ...],
    seed: int,
    codes: tuple[Codes, ...] | None = None,
    *,
    threshold: float = 0.7,
    encoder_slack: float = 0.05,
    exact_up_to: int = 8192,
) -> Measurement:
    """Whether another training seed finds the same latents, averaged over pairs of the group.

    `threshold` is the cosine from which two latents are the same, in decoder and in encoder;
    `encoder_slack` how far below the best the counterpart's encoder cosine may be; `exact_up_to`
    the number of live latents up to which the assignment is made. The standard error leaves out
    one SAE at a time.
    """
    from saebench_canon.metrics.seed_matching.matching import correlations, match

    if not -1 <= threshold <= 1:
        raise CanonError(f"seed_matching: threshold = {threshold} is not a cosine from −1 to 1")
    marks = () if codes is not None else (NO_CODES,)
    live = _live(saes, codes)
    counts = [int(each.sum()) for each in live]
    if reason := _refusal(counts, exact_up_to):
        names = (*OF_ROWS, *OF_ENCODERS, "code_correlation")
        return Measurement({name: Undefined(reason) for name in names}, marks=marks)
    rows = [sae.W_dec[kept] for sae, kept in zip(saes, live, strict=True)]
    encoders = [
        None if sae.encoder is None else sae.encoder.T[kept]
        for sae, kept in zip(saes, live, strict=True)
    ]
    pairs = list(combinations(range(len(saes)), 2))
    found = {
        (a, b): match(
            rows[a], rows[b], encoders[a], encoders[b], threshold=threshold, slack=encoder_slack
        )
        for a, b in track(pairs, "matching pairs", len(pairs))
    }
    scores = _summaries(found, len(saes), threshold)
    scores |= _null_scores(rows, encoders, seed, threshold, encoder_slack)
    scores["code_correlation"] = Undefined("needs activations")
    if codes is not None:
        correlation = {}
        for (a, b), each in found.items():
            whole = _on_all_latents(each.counterpart, live[a], live[b]).to(codes[a].values.device)
            measured = correlations(codes[a], codes[b].to(codes[a].values.device), whole)
            correlation[a, b] = float(measured.nanmean())
        scores["code_correlation"] = _over_pairs(correlation, len(saes))
    return Measurement(scores, {"matches": _table(found, live, codes)}, marks)


def _live(saes: Sequence[CanonicalSAE], codes: Sequence[Codes] | None) -> list[Tensor]:
    import torch

    if codes is None:
        return [torch.ones(sae.width, dtype=torch.bool, device=sae.W_dec.device) for sae in saes]
    return [each.live.to(sae.W_dec.device) for sae, each in zip(saes, codes, strict=True)]


def _refusal(counts: list[int], exact_up_to: int) -> str | None:
    if len(counts) < 2:
        return "one SAE has no other to be matched with"
    if min(counts) == 0:
        return "an SAE of the group has no live latent"
    if max(counts) > exact_up_to:
        return f"{max(counts)} live latents are more than exact_up_to = {exact_up_to}"
    return None


def _summaries(
    found: dict[Pair, Match], members: int, threshold: float
) -> dict[str, float | Value | Undefined]:
    """The scores of matched pairs; shares and MMCS are means of both directions."""
    from saebench_canon.kernels.cosine import tied

    def both(first: Tensor | None, second: Tensor | None) -> float:
        assert first is not None
        assert second is not None
        return (float(first.double().mean()) + float(second.double().mean())) / 2

    def over(values: dict[Pair, float]) -> Value:
        return _over_pairs(values, members)

    near = {
        pair: both(tied(each.best) > threshold, tied(each.best_back) > threshold)
        for pair, each in found.items()
    }
    scores: dict[str, float | Value | Undefined] = {
        "mcc": over({pair: each.mcc for pair, each in found.items()}),
        "mcc_abs": over({pair: each.mcc_abs for pair, each in found.items()}),
        "mmcs": over({pair: both(each.best, each.best_back) for pair, each in found.items()}),
        "coverage": over(near),
    }
    if any(each.shared is None for each in found.values()):
        reason = "an SAE of the group has no linear encoder"
        return scores | {name: Undefined(reason) for name in OF_ENCODERS}
    shared = {pair: both(each.shared, each.shared_back) for pair, each in found.items()}
    strict = {pair: both(each.strict, each.strict_back) for pair, each in found.items()}
    return scores | {"shared_share": over(shared), "shared_share_strict": over(strict)}


def _null_scores(
    rows: list[Tensor], encoders: list[Tensor | None], seed: int, threshold: float, slack: float
) -> dict[str, float | Value | Undefined]:
    """The same scores of random dictionaries, one for each member, averaged over pairs."""
    from saebench_canon.kernels.nulls import (
        covariance_matched,
        covariance_matched_pairs,
        isotropic,
    )
    from saebench_canon.kernels.seeds import generator
    from saebench_canon.metrics.seed_matching.matching import match

    random, plain = [], []
    random_encoders: list[Tensor | None] = []
    for member, (own, encoder) in enumerate(zip(rows, encoders, strict=True)):
        draws = generator(seed, "seed_matching", "rows", member)
        uniform = generator(seed, "seed_matching", "isotropic", member)
        plain.append(isotropic(own.shape[0], own.shape[1], uniform))
        if encoder is None:
            random.append(covariance_matched(own, draws))
            random_encoders.append(None)
            continue
        # at once: real encoders lie along their decoder rows, and independent draws never agree
        drawn, drawn_encoder = covariance_matched_pairs(own, encoder, draws)
        random.append(drawn)
        random_encoders.append(drawn_encoder)
    mcc, uniform_mcc, shared = [], [], []
    pairs = list(combinations(range(len(rows)), 2))
    for a, b in track(pairs, "matching random rows", len(pairs)):
        matched = match(
            random[a], random[b], random_encoders[a], random_encoders[b],
            threshold=threshold, slack=slack,
        )  # fmt: skip
        mcc.append(matched.mcc)
        uniform_mcc.append(match(plain[a], plain[b]).mcc)
        if matched.shared is not None and matched.shared_back is not None:
            each = (matched.shared.double().mean() + matched.shared_back.double().mean()) / 2
            shared.append(float(each))
    scores: dict[str, float | Value | Undefined] = {
        "null_mcc": _mean(mcc),
        "null_isotropic": _mean(uniform_mcc),
    }
    return scores | ({"null_shared": _mean(shared)} if len(shared) == len(mcc) else {})


def _over_pairs(values: dict[Pair, float], members: int) -> Value:
    """The mean over pairs, with the leave-one-out standard error from three members on."""
    mean = _mean(list(values.values()))
    if members < 3:
        return Value(mean, None, members, "training seed")
    left = [
        _mean([value for pair, value in values.items() if member not in pair])
        for member in range(members)
    ]
    return Value(mean, jackknife_stderr(left), members, "training seed")


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _on_all_latents(counterpart: Tensor, live: Tensor, other_live: Tensor) -> Tensor:
    """A matching of live latents as one of all latents, −1 for those that have none."""
    import torch

    names = other_live.nonzero()[:, 0]
    whole = torch.full((len(live),), -1, dtype=torch.int64, device=live.device)
    whole[live] = torch.where(counterpart >= 0, names[counterpart.clamp(min=0)], -1)
    return whole


def _table(
    found: dict[Pair, Match], live: list[Tensor], codes: Sequence[Codes] | None
) -> pd.DataFrame:
    """One row for each live latent of each member.

    `counterparts` are its latents in the other members, in their order (−1: none), `cosine` the
    mean over those it has, `found_in` in how many members it is found, itself included: shared
    there, or nan where encoders are not linear.
    """
    import pandas as pd
    import torch

    from saebench_canon.metrics.seed_matching.assignment import invert

    parts = []
    for member, own in enumerate(live):
        counterparts, cosines, shared = [], [], []
        for other in range(len(live)):
            if other == member:
                continue
            forward = member < other
            each = found[(member, other) if forward else (other, member)]
            there, cosine = each.counterpart, each.cosine
            if not forward:
                there = invert(each.counterpart, int(own.sum()))
                cosine = torch.where(there >= 0, each.cosine[there.clamp(min=0)], torch.nan)
            counterparts.append(
                torch.where(there >= 0, live[other].nonzero()[:, 0][there.clamp(min=0)], -1)
            )
            cosines.append(cosine)
            shared.append(each.shared if forward else each.shared_back)
        latents = own.nonzero()[:, 0]
        known = [each.double() for each in shared if each is not None]
        complete = len(known) == len(shared)
        density = torch.full((len(latents),), torch.nan, dtype=torch.float64)
        if codes is not None:
            fired = codes[member].counts.to(own.device)[latents]
            density = fired.double() / len(codes[member])
        parts.append(
            pd.DataFrame(
                {
                    "member": member,
                    "latent": latents.tolist(),
                    "counterparts": torch.stack(counterparts, dim=1).tolist(),
                    "cosine": torch.stack(cosines).nanmean(dim=0).tolist(),
                    "found_in": (1 + torch.stack(known).sum(dim=0)).tolist()
                    if complete
                    else math.nan,
                    "density": density.tolist(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
