"""Whether two dictionaries of one width hold the same latents (after arXiv 2501.16615)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import tied, unit
from saebench_canon.metrics.seed_matching.assignment import assign, invert

TIE = 1e-9  # weight of encoder cosines, which decide where decoder rows leave ties


@dataclass(frozen=True, eq=False)
class Match:
    """Two sets of rows compared: `counterpart` [m1] int64 (−1: none) and cosines, float64.

    `shared` and `strict` [m1] bool are the rows of the first set that are found again in the
    second, `shared_back` and `strict_back` [m2] the rows of the second set that are found again in
    the first. All four are None without encoders.
    """

    counterpart: Tensor
    cosine: Tensor  # [m1] with the counterpart, nan without one
    mcc: float
    mcc_abs: float
    best: Tensor  # [m1] largest cosine with any row of the second set
    best_back: Tensor  # [m2]
    shared: Tensor | None = None
    shared_back: Tensor | None = None
    strict: Tensor | None = None
    strict_back: Tensor | None = None


def match(
    rows: Tensor,
    others: Tensor,
    encoder: Tensor | None = None,
    other_encoder: Tensor | None = None,
    *,
    threshold: float = 0.7,
    slack: float = 0.05,
) -> Match:
    """Match rows [m1, d] with others [m2, d] one to one; encoders as rows, [m1, d] and [m2, d].

    A row is shared iff its counterpart's decoder and encoder cosines are ≥ `threshold` and the
    encoder's is within `slack` of the best among all rows of the other set. It is strictly shared
    iff an assignment made on encoders alone names the same counterpart, both cosines being
    ≥ `threshold`. Raises ValueError on an empty set.
    """
    if len(rows) == 0 or len(others) == 0:
        raise ValueError("an empty set of rows has no match")
    cosines = unit(rows) @ unit(others).T
    of_encoders = (
        None if encoder is None or other_encoder is None else unit(encoder) @ unit(other_encoder).T
    )
    counterpart = assign(cosines if of_encoders is None else cosines + TIE * of_encoders)
    matched = counterpart >= 0
    partner = counterpart.clamp(min=0)
    index = torch.arange(len(rows), device=rows.device)
    cosine = torch.where(matched, cosines[index, partner], torch.nan)
    absolute = cosines.abs()
    turned = assign(absolute)
    absolute_cosines = absolute[index, turned.clamp(min=0)][turned >= 0]
    shared = (
        [None] * 4
        if of_encoders is None
        else _shared(cosines, of_encoders, counterpart, threshold, slack)
    )
    return Match(
        counterpart,
        cosine,
        float(cosine[matched].mean()),
        float(absolute_cosines.mean()),
        cosines.amax(dim=1),
        cosines.amax(dim=0),
        *shared,
    )


def _shared(
    cosines: Tensor, of_encoders: Tensor, counterpart: Tensor, threshold: float, slack: float
) -> list[Tensor]:
    index = torch.arange(len(cosines), device=cosines.device)
    partner = counterpart.clamp(min=0)
    matched = counterpart >= 0
    encoder = tied(of_encoders[index, partner])
    near = matched & (tied(cosines[index, partner]) >= threshold) & (encoder >= threshold)
    back = invert(counterpart, cosines.shape[1])
    has_back, source = back >= 0, back.clamp(min=0)
    shared = near & within(encoder, of_encoders.amax(dim=1), slack)
    shared_back = near[source] & within(encoder[source], of_encoders.amax(dim=0), slack)
    strict = near & (assign(of_encoders) == counterpart)
    return [shared, shared_back & has_back, strict, strict[source] & has_back]


def within(cosine: Tensor, best: Tensor, slack: float) -> Tensor:
    """Whether a cosine is within the slack of the best one, up to rounding."""
    return tied(cosine) >= tied(tied(best) - slack)


def correlations(first: Codes, second: Codes, counterpart: Tensor) -> Tensor:
    """Pearson correlation over tokens of each latent's codes with its counterpart's, [m1] float64.

    `counterpart` [m1] is a latent of the second SAE, −1 for none (nan). A latent that never varies
    correlates 0. Sparse: only tokens where both are active are touched.
    """
    n = len(first)
    back = invert(counterpart, second.width)
    partner = back[second.indices.long()]
    paired = partner >= 0
    width = first.width
    theirs = second.token_ids()[paired] * width + partner[paired]
    theirs, order = theirs.sort()
    their_values = second.values[paired][order].double()
    ours = first.token_ids() * width + first.indices.long()
    position = torch.searchsorted(theirs, ours)
    both = position < len(theirs)
    both[both.clone()] = theirs[position[both]] == ours[both]
    products = first.values[both].double() * their_values[position[both]]
    cross = torch.zeros(width, dtype=torch.float64, device=products.device)
    cross.index_add_(0, first.indices[both].long(), products)
    matched = counterpart.clamp(min=0)
    mean, mean2 = first.column_sums(1) / n, second.column_sums(1)[matched] / n
    variance = first.column_sums(2) / n - mean**2
    variance2 = second.column_sums(2)[matched] / n - mean2**2
    scale = (variance.clamp(min=0) * variance2.clamp(min=0)).sqrt()
    varies = scale > 1e-12 * (first.column_sums(2) * second.column_sums(2)[matched]).sqrt() / n
    correlation = torch.where(varies, (cross / n - mean * mean2) / scale.clamp(min=1e-300), 0)
    return torch.where(counterpart >= 0, correlation, torch.nan)
