"""Whether another training seed finds the same latents."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.metrics.seed_matching.cost import cost
from saebench_canon.metrics.seed_matching.scores import (
    GRADES,
    NEEDS_DATA,
    NEEDS_THREE,
    NULL,
    scores_of_seeds,
)
from saebench_canon.metrics.shared.pairs import NO_CODES
from saebench_canon.plugin.metric import Measurement, Undefined, Value, metric
from saebench_canon.progress import track

if TYPE_CHECKING:
    from torch import Tensor

    from saebench_canon.kernels.codes import Codes
    from saebench_canon.metrics.seed_matching.matching import Match
    from saebench_canon.plugin.activations import Acts
    from saebench_canon.plugin.sae import CanonicalSAE

Number = float | Value | Undefined


@metric(of="group", version=2, cost=cost, scores=list(scores_of_seeds()))
def seed_matching(
    saes: tuple[CanonicalSAE, ...],
    seed: int,
    codes: tuple[Codes, ...] | None = None,
    acts: Acts | None = None,
    *,
    threshold: float = 0.7,
    encoder_slack: float = 0.05,
    exact_up_to: int = 8192,
    code_threshold: float = 0.7,
    subspace_rows: int = 8,
) -> Measurement:
    """Whether another training seed finds the same latents.

    Two latents are the same from a cosine of `threshold` on, in the decoder and in the encoder.
    `encoder_slack` is how far the counterpart's encoder cosine may be below the best one.
    `exact_up_to` is the number of live latents up to which the assignment is computed. Two latents'
    codes agree from a correlation of `code_threshold` on. `subspace_rows` is the mean number of
    latents in a group whose span is compared. The standard error leaves out one SAE at a time.
    """
    from saebench_canon.metrics.seed_matching.graded import Group, graded
    from saebench_canon.metrics.seed_matching.matched import (
        code_correlation,
        matched_scores,
        matches_table,
    )
    from saebench_canon.metrics.seed_matching.nulls import null_scores

    _check(threshold, code_threshold, subspace_rows)
    marks = () if codes is not None else (NO_CODES,)
    live = _live(saes, codes)
    if reason := _refusal([int(mask.sum()) for mask in live], exact_up_to):
        names = (score.name for score in seed_matching.scores)
        return Measurement({name: Undefined(reason) for name in names}, marks=marks)
    rows = [sae.W_dec[mask] for sae, mask in zip(saes, live, strict=True)]
    encoders = [
        None if sae.encoder is None else sae.encoder.T[mask]
        for sae, mask in zip(saes, live, strict=True)
    ]
    matches = _match(rows, encoders, threshold, encoder_slack)
    scores: dict[str, Number] = {f"{name}{NULL}": Undefined(NEEDS_THREE) for name in GRADES}
    scores |= matched_scores(matches, len(saes), threshold)
    scores |= null_scores(rows, encoders, seed, threshold, encoder_slack)
    scores["code_correlation"] = (
        Undefined(NEEDS_DATA) if codes is None else code_correlation(matches, live, codes)
    )
    group = Group(saes, codes, threshold, code_threshold)
    of_grades, tables = graded(group, acts, subspace_rows, seed)
    tables["matches"] = matches_table(matches, live, codes)
    return Measurement(scores | of_grades, tables, marks)


def _check(threshold: float, code_threshold: float, subspace_rows: int) -> None:
    if not -1 <= threshold <= 1:
        raise CanonError(f"seed_matching: threshold must be a cosine, −1 to 1, got {threshold}")
    if not -1 <= code_threshold <= 1:
        requirement = "code_threshold must be a correlation, −1 to 1"
        raise CanonError(f"seed_matching: {requirement}, got {code_threshold}")
    if subspace_rows < 2:
        raise CanonError(f"seed_matching: subspace_rows must be 2 or more, got {subspace_rows}")


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


def _match(
    rows: Sequence[Tensor], encoders: Sequence[Tensor | None], threshold: float, slack: float
) -> dict[tuple[int, int], Match]:
    """Every two members matched."""
    from saebench_canon.metrics.seed_matching.matching import match

    pairs = list(combinations(range(len(rows)), 2))
    return {
        (a, b): match(rows[a], rows[b], encoders[a], encoders[b], threshold=threshold, slack=slack)
        for a, b in track(pairs, "matching pairs", len(pairs))
    }
