"""What the scores of decoder rows are of random dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from torch import Tensor

from saebench_canon.kernels.cosine import tied
from saebench_canon.kernels.nulls import covariance_matched, covariance_matched_pairs, isotropic
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.seed_matching.found_again import shares
from saebench_canon.metrics.seed_matching.matching import match
from saebench_canon.metrics.seed_matching.over_members import mean
from saebench_canon.metrics.seed_matching.scores import NULL
from saebench_canon.progress import track


def null_scores(
    rows: Sequence[Tensor],
    encoders: Sequence[Tensor | None],
    seed: int,
    threshold: float,
    slack: float,
) -> dict[str, float]:
    """The same scores of random dictionaries, one for each member, averaged over pairs."""
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
    found = {}
    pairs = list(combinations(range(len(rows)), 2))
    for a, b in track(pairs, "matching random rows", len(pairs)):
        matched = match(
            random[a], random[b], random_encoders[a], random_encoders[b],
            threshold=threshold, slack=slack,
        )  # fmt: skip
        mcc.append(matched.mcc)
        uniform_mcc.append(match(plain[a], plain[b]).mcc)
        found[a, b] = tied(matched.best) >= threshold
        found[b, a] = tied(matched.best_back) >= threshold
        if matched.shared is not None and matched.shared_back is not None:
            share = (matched.shared.double().mean() + matched.shared_back.double().mean()) / 2
            shared.append(float(share))
    scores = {"null_mcc": mean(mcc), "null_isotropic": mean(uniform_mcc)}
    if len(shared) == len(mcc):
        scores["null_shared"] = mean(shared)
    graded = shares(found, len(rows))
    return scores | {f"{name}{NULL}": mean(part.values()) for name, part in graded.items()}
