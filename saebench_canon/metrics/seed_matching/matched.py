"""The scores and the table of latents matched one to one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import tied
from saebench_canon.metrics.seed_matching.assignment import invert
from saebench_canon.metrics.seed_matching.matching import Match, correlations
from saebench_canon.metrics.seed_matching.over_members import over_members
from saebench_canon.metrics.seed_matching.scores import NEEDS_ENCODERS
from saebench_canon.plugin.metric import Undefined, Value

Pair = tuple[int, int]


def matched_scores(
    matches: Mapping[Pair, Match], members: int, threshold: float
) -> dict[str, Value | Undefined]:
    """The scores of matched pairs; shares and MMCS are means of both directions."""

    def both(first: Tensor | None, second: Tensor | None) -> float:
        assert first is not None
        assert second is not None
        return (float(first.double().mean()) + float(second.double().mean())) / 2

    def over(values: dict[Pair, float]) -> Value:
        return over_members(values, members)

    near = {
        pair: both(tied(matched.best) > threshold, tied(matched.best_back) > threshold)
        for pair, matched in matches.items()
    }
    scores: dict[str, Value | Undefined] = {
        "mcc": over({pair: matched.mcc for pair, matched in matches.items()}),
        "mcc_abs": over({pair: matched.mcc_abs for pair, matched in matches.items()}),
        "mmcs": over(
            {pair: both(matched.best, matched.best_back) for pair, matched in matches.items()}
        ),
        "coverage": over(near),
    }
    if any(matched.shared is None for matched in matches.values()):
        lacking = Undefined(NEEDS_ENCODERS)
        names = ("shared_share", "shared_share_strict", "null_shared")
        return scores | dict.fromkeys(names, lacking)
    shared = {pair: both(matched.shared, matched.shared_back) for pair, matched in matches.items()}
    strict = {pair: both(matched.strict, matched.strict_back) for pair, matched in matches.items()}
    return scores | {"shared_share": over(shared), "shared_share_strict": over(strict)}


def code_correlation(
    matches: Mapping[Pair, Match], live: Sequence[Tensor], codes: Sequence[Codes]
) -> Value:
    """The mean correlation of matched latents' codes, over pairs."""
    measured = {}
    for (a, b), matched in matches.items():
        device = codes[a].values.device
        counterpart = _on_all_latents(matched.counterpart, live[a], live[b]).to(device)
        measured[a, b] = float(correlations(codes[a], codes[b].to(device), counterpart).nanmean())
    return over_members(measured, len(live))


def _on_all_latents(counterpart: Tensor, live: Tensor, other_live: Tensor) -> Tensor:
    """A matching of live latents, extended to all latents, −1 for those without a counterpart."""
    names = other_live.nonzero()[:, 0]
    extended = torch.full((len(live),), -1, dtype=torch.int64, device=live.device)
    extended[live] = torch.where(counterpart >= 0, names[counterpart.clamp(min=0)], -1)
    return extended


def matches_table(
    matches: Mapping[Pair, Match], live: Sequence[Tensor], codes: Sequence[Codes] | None
) -> pd.DataFrame:
    """One row for each live latent of each member.

    `counterparts` are its counterparts in the other members, in their order (−1: none). `cosine` is
    the mean over those it has. `found_in` is the number of members in which it is shared, its own
    included, or nan where encoders are not linear.
    """
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
