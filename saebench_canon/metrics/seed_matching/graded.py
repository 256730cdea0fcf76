"""What two other seeds find of an SAE, one of them, or neither: the scores and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from saebench_canon.kernels.codes import Codes
from saebench_canon.metrics.seed_matching.carried import carried
from saebench_canon.metrics.seed_matching.found_again import (
    Candidates,
    Found,
    Pair,
    by_codes,
    by_encoders,
    by_rows,
    search,
    shares,
)
from saebench_canon.metrics.seed_matching.over_members import mean, over_members
from saebench_canon.metrics.seed_matching.scores import (
    CENTRED,
    CODES,
    ENCODER,
    GRADES,
    NEEDS_DATA,
    NEEDS_ENCODERS,
    NEEDS_THREE,
    NOTHING_EXPLAINED,
    SHARED_DIRECTION,
    WAYS,
)
from saebench_canon.metrics.seed_matching.subspaces import subspaces
from saebench_canon.metrics.seed_matching.tables import found_table, members_table, pairs_table
from saebench_canon.metrics.shared.dictionary import Dictionary, dictionary_of
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.metric import Undefined, Value
from saebench_canon.plugin.sae import CanonicalSAE

Number = float | Value | Undefined


@dataclass(frozen=True, eq=False)
class Group:
    """SAEs that differ in their seeds, with their live latents, none without any."""

    saes: Sequence[CanonicalSAE]
    codes: Sequence[Codes] | None
    threshold: float
    code_threshold: float

    def __len__(self) -> int:
        return len(self.saes)

    @cached_property
    def dictionaries(self) -> list[Dictionary]:
        """Each member's live latents, and the representatives of duplicates."""
        codes = self.codes or (None,) * len(self)
        return [dictionary_of(sae, sparse) for sae, sparse in zip(self.saes, codes, strict=True)]

    @cached_property
    def centred(self) -> list[Dictionary]:
        """The same without the mean of each member's rows."""
        return [dictionary.centred() for dictionary in self.dictionaries]

    @cached_property
    def near(self) -> dict[Pair, Candidates]:
        """What each two members' rows may find in each other."""
        return search(self.dictionaries, self.threshold)

    @cached_property
    def found(self) -> dict[str, Found]:
        """Which latents each other member finds, in each way that applies."""
        ways = {"": by_rows(self.near, self.dictionaries)}
        if all(len(dictionary) for dictionary in self.centred):
            ways[CENTRED] = by_rows(search(self.centred, self.threshold), self.centred)
        if self.codes is not None:
            ways[CODES] = by_codes(self.near, self.dictionaries, self.codes, self.code_threshold)
        encoders = [sae.encoder.T for sae in self.saes if sae.encoder is not None]
        if len(encoders) == len(self):
            ways[ENCODER] = by_encoders(self.near, self.dictionaries, encoders, self.threshold)
        return ways


def graded(
    group: Group, acts: Acts | None, subspace_rows: int, seed: int
) -> tuple[dict[str, Number], dict[str, pd.DataFrame]]:
    """The scores of latents found again, what they carry, what the others span; three tables."""
    scores: dict[str, Number] = {}
    for way in WAYS:
        scores |= _grades(group, way)
    variance, of_triples = _variance(group, acts, seed)
    scores |= variance | _subspaces(group, subspace_rows, seed)
    tables = {
        "members": members_table(group.found, of_triples, len(group)),
        "pairs": pairs_table(group.found, len(group)),
        "found": found_table(group.found, group.near, group.dictionaries, group.centred),
    }
    return scores, tables


def _grades(group: Group, way: str) -> dict[str, Number]:
    """The shares found by two, by one and by none in one way."""
    if way not in group.found:
        reasons = {CENTRED: SHARED_DIRECTION, CODES: NEEDS_DATA, ENCODER: NEEDS_ENCODERS}
        return {f"{name}{way}": Undefined(reasons[way]) for name in GRADES}
    parts = shares(group.found[way], len(group))
    return {
        f"{name}{way}": over_members(parts[name], len(group)) if name in parts
        else Undefined(NEEDS_THREE)
        for name in GRADES
    }  # fmt: skip


def _variance(
    group: Group, acts: Acts | None, seed: int
) -> tuple[dict[str, Number], dict[tuple[int, ...], float]]:
    """The variance that latents found by two others carry, and that of each triple."""
    if group.codes is None or acts is None:
        return _lacking("shared_variance", "shared_variance_null", NEEDS_DATA), {}
    if len(group) < 3:
        return _lacking("shared_variance", "shared_variance_null", NEEDS_THREE), {}
    variance: dict[tuple[int, ...], float] = {}
    by_chance: dict[tuple[int, ...], float] = {}
    for member, (sae, codes) in enumerate(zip(group.saes, group.codes, strict=True)):
        both = carried(
            group.found[""], member, group.dictionaries[member], sae.W_dec, codes, acts.x,
            members=len(group), seed=seed,
        )  # fmt: skip
        if both is None:
            return _lacking("shared_variance", "shared_variance_null", NOTHING_EXPLAINED), {}
        variance |= both[0]
        by_chance |= both[1]
    scores: dict[str, Number] = {
        "shared_variance": over_members(variance, len(group)),
        "shared_variance_null": mean(by_chance.values()),
    }
    return scores, variance


def _subspaces(group: Group, size: int, seed: int) -> dict[str, Number]:
    """The overlap of spans of latents that the other does not find."""
    overlap, null = subspaces(group.found[""], group.dictionaries, size, seed)
    if not overlap:
        reason = f"no two SAEs have {2 * size} latents each that the other does not find"
        return _lacking("subspace_overlap", "subspace_null", reason)
    return {
        "subspace_overlap": over_members(overlap, len(group)),
        "subspace_null": mean(null.values()),
    }


def _lacking(score: str, null: str, reason: str) -> dict[str, Number]:
    return {score: Undefined(reason), null: Undefined(reason)}
