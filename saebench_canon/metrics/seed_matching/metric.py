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
            help="Share of live latents with the same counterpart by decoders and by encoders.",
        ),
        Score("mmcs", better="higher", help="Mean of each row's largest cosine, both directions."),
        Score(
            "coverage",
            better="higher",
            help="Share of rows whose largest cosine is above θ, both directions.",
        ),
        Score(
            "code_correlation",
            better="higher",
            help="Mean correlation of matched latents' codes on the same tokens.",
        ),
        Score("null_mcc", help="mcc of random rows of the same mean and covariance."),
        Score("null_isotropic", help="mcc of random rows of uniform direction."),
        Score("null_shared", help="shared_share of random rows and encoders, drawn together."),
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

    Two latents are the same from a cosine of `threshold` on, in the decoder and in the encoder.
    `encoder_slack` is how far the counterpart's encoder cosine may be below the best one.
    `exact_up_to` is the number of live latents up to which the assignment is computed. The standard
    error leaves out one SAE at a time.
    """
    from saebench_canon.metrics.seed_matching.matching import correlations, match

    if not -1 <= threshold <= 1:
        raise CanonError(f"seed_matching: threshold must be a cosine, −1 to 1, got {threshold}")
    marks = () if codes is not None else (NO_CODES,)
    live = _live(saes, codes)
    counts = [int(mask.sum()) for mask in live]
    if reason := _refusal(counts, exact_up_to):
        names = (*OF_ROWS, *OF_ENCODERS, "code_correlation")
        return Measurement({name: Undefined(reason) for name in names}, marks=marks)
    rows = [sae.W_dec[mask] for sae, mask in zip(saes, live, strict=True)]
    encoders = [
        None if sae.encoder is None else sae.encoder.T[mask]
        for sae, mask in zip(saes, live, strict=True)
    ]
    pairs = list(combinations(range(len(saes)), 2))
    matches = {
        (a, b): match(
            rows[a], rows[b], encoders[a], encoders[b], threshold=threshold, slack=encoder_slack
        )
        for a, b in track(pairs, "matching pairs", len(pairs))
    }
    scores = _summaries(matches, len(saes), threshold)
    scores |= _null_scores(rows, encoders, seed, threshold, encoder_slack)
    scores["code_correlation"] = Undefined("needs activations")
    if codes is not None:
        correlation = {}
        for (a, b), matched in matches.items():
            counterpart = _on_all_latents(matched.counterpart, live[a], live[b]).to(
                codes[a].values.device
            )
            measured = correlations(codes[a], codes[b].to(codes[a].values.device), counterpart)
            correlation[a, b] = float(measured.nanmean())
        scores["code_correlation"] = _over_pairs(correlation, len(saes))
    return Measurement(scores, {"matches": _table(matches, live, codes)}, marks)


def _live(saes: Sequence[CanonicalSAE], codes: Sequence[Codes] | None) -> list[Tensor]:
    from saebench_canon.metrics.shared.live_rows import live_latents

    all_codes = codes or (None,) * len(saes)
    return [live_latents(sae, sparse) for sae, sparse in zip(saes, all_codes, strict=True)]


def _refusal(counts: list[int], exact_up_to: int) -> str | None:
    if len(counts) < 2:
        return "the group has only one SAE, and nothing to match it with"
    if min(counts) == 0:
        return "an SAE of the group has no live latent"
    if max(counts) > exact_up_to:
        return f"{max(counts)} live latents are more than exact_up_to = {exact_up_to}"
    return None


def _summaries(
    matches: dict[Pair, Match], members: int, threshold: float
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
        pair: both(tied(matched.best) > threshold, tied(matched.best_back) > threshold)
        for pair, matched in matches.items()
    }
    scores: dict[str, float | Value | Undefined] = {
        "mcc": over({pair: matched.mcc for pair, matched in matches.items()}),
        "mcc_abs": over({pair: matched.mcc_abs for pair, matched in matches.items()}),
        "mmcs": over(
            {pair: both(matched.best, matched.best_back) for pair, matched in matches.items()}
        ),
        "coverage": over(near),
    }
    if any(matched.shared is None for matched in matches.values()):
        reason = "an SAE of the group has no linear encoder"
        return scores | {name: Undefined(reason) for name in OF_ENCODERS}
    shared = {pair: both(matched.shared, matched.shared_back) for pair, matched in matches.items()}
    strict = {pair: both(matched.strict, matched.strict_back) for pair, matched in matches.items()}
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
    from saebench_canon.kernels.random_generators import generator
    from saebench_canon.metrics.seed_matching.matching import match

    random, plain = [], []
    random_encoders: list[Tensor | None] = []
    for member, (table, encoder) in enumerate(zip(rows, encoders, strict=True)):
        draws = generator(seed, "seed_matching", "rows", member)
        uniform = generator(seed, "seed_matching", "isotropic", member)
        plain.append(isotropic(table.shape[0], table.shape[1], uniform))
        if encoder is None:
            random.append(covariance_matched(table, draws))
            random_encoders.append(None)
            continue
        # drawn together: real encoders lie along their decoder rows; independent draws never agree
        drawn, drawn_encoder = covariance_matched_pairs(table, encoder, draws)
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
            share = (matched.shared.double().mean() + matched.shared_back.double().mean()) / 2
            shared.append(float(share))
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
    without_one = [
        _mean([value for pair, value in values.items() if member not in pair])
        for member in range(members)
    ]
    return Value(mean, jackknife_stderr(without_one), members, "training seed")


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _on_all_latents(counterpart: Tensor, live: Tensor, other_live: Tensor) -> Tensor:
    """A matching of live latents, extended to all latents, −1 for those without a counterpart."""
    import torch

    names = other_live.nonzero()[:, 0]
    extended = torch.full((len(live),), -1, dtype=torch.int64, device=live.device)
    extended[live] = torch.where(counterpart >= 0, names[counterpart.clamp(min=0)], -1)
    return extended


def _table(
    matches: dict[Pair, Match], live: list[Tensor], codes: Sequence[Codes] | None
) -> pd.DataFrame:
    """One row for each live latent of each member.

    `counterparts` are its counterparts in the other members, in their order (−1: none). `cosine` is
    the mean over those it has. `found_in` is the number of members in which it is shared, its own
    included, or nan where encoders are not linear.
    """
    import pandas as pd
    import torch

    from saebench_canon.metrics.seed_matching.assignment import invert

    parts = []
    for member, member_live in enumerate(live):
        counterparts, cosines, shared = [], [], []
        for partner in range(len(live)):
            if partner == member:
                continue
            forward = member < partner
            matched = matches[(member, partner) if forward else (partner, member)]
            counterpart, cosine = matched.counterpart, matched.cosine
            if not forward:
                counterpart = invert(matched.counterpart, int(member_live.sum()))
                cosine = torch.where(
                    counterpart >= 0, matched.cosine[counterpart.clamp(min=0)], torch.nan
                )
            counterparts.append(
                torch.where(
                    counterpart >= 0, live[partner].nonzero()[:, 0][counterpart.clamp(min=0)], -1
                )
            )
            cosines.append(cosine)
            shared.append(matched.shared if forward else matched.shared_back)
        latents = member_live.nonzero()[:, 0]
        known = [mask.double() for mask in shared if mask is not None]
        complete = len(known) == len(shared)
        density = torch.full((len(latents),), torch.nan, dtype=torch.float64)
        if codes is not None:
            fired = codes[member].counts.to(member_live.device)[latents]
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
