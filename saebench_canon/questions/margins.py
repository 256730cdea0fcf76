"""Where the lines of the verdicts are drawn; every one is a choice of ours (METRICS section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Answer = Literal["no", "yes", "undecided", "not measurable", "not judged"]


@dataclass(frozen=True)
class Margins:
    """The limits that answers are decided by; they are printed with the sentence."""

    unique: float = 0.9  # shared share from which a dictionary counts as unique
    null_shared: float = 0.1  # shared share of random rows above which nothing can be said
    seeds: int = 3  # training seeds below which nothing is judged
    reproducible: float = 0.5  # share of latents that other seeds have too below which they differ
    worse: float = 0.05  # of the smaller's error that the larger may leave more, at its best scale
    better: float = 0.05  # of the smaller's error that the larger may leave less and add nothing
    sums: float = 0.25  # span residual of random rows at or below which sums cannot be told
    missing: float = 0.05  # stable novel share, above its floor: more is incomplete, less is not
    worth: float = 0.01  # stable gain above its floor from which what is missing matters
    worthless: float = 0.02  # stable gain below which nothing that matters is missing
    composed: float = 0.1  # share of sums beyond chance, and above its floor, from which not atomic
    atomic: float = 0.05  # share of sums beyond chance below which none is found
    recall: float = 0.7  # planted sums that a test must find for its silence to count
    purged: float = 0.5  # rows near a row kept out from which meta-latents cannot be told from them
