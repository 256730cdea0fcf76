"""What a run's records say a latent is made of, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from saebench_canon.errors import CanonError
from saebench_canon.record import Record
from saebench_canon.render import number
from saebench_canon.store import Store

if TYPE_CHECKING:
    import pandas as pd

Cases = Sequence[Mapping[str, Any]]
Scores = Mapping[str, Mapping[str, Any]]


class _Beside(NamedTuple):
    """A score, its null, and whether it lies above it by more than two standard errors."""

    value: float
    null: float
    more: bool


@dataclass(frozen=True, eq=False)
class MetaSae:
    """A measured meta-SAE of one SAE: every latent's meta-latents and what they explain."""

    label: str
    record: Record
    weights: pd.DataFrame  # latent, meta_latent, weight; heaviest first within a latent
    latents: pd.DataFrame  # latent, explained
    meta_latents: pd.DataFrame  # meta_latent, latents, …

    def of_latent(self, latent: int) -> dict[int, float]:
        """The latent's meta-latents and their weights, heaviest first."""
        return _pairs(self.weights[self.weights.latent == latent], "meta_latent")

    def of_meta_latent(self, meta_latent: int) -> dict[int, float]:
        """The latents in which a meta-latent stands and its weights there, heaviest first."""
        return _pairs(self.weights[self.weights.meta_latent == meta_latent], "latent")

    def explained(self, latent: int) -> float | None:
        """The share of the latent's row that its meta-latents explain."""
        found = self.latents.loc[self.latents.latent == latent, "explained"]
        return None if found.empty or not math.isfinite(found.iloc[0]) else float(found.iloc[0])


@dataclass(frozen=True, eq=False)
class Sum:
    """A latent as a sum of latents of a smaller SAE: atoms, weights, the share explained so far."""

    record: Record
    atoms: tuple[tuple[int, float, float], ...]


def meta_sae_of(sae: str, cases: Cases, store: Store) -> MetaSae:
    """The SAE's meta-SAE with its decomposition; raises CanonError with why there is none."""
    label, record = _measured("meta_sae", [sae], cases, store)
    tables = [_table(name, record, store) for name in ("decomposition", "latents", "meta_latents")]
    return MetaSae(label, record, *tables)


def sum_of(small: str, large: str, latent: int, cases: Cases, store: Store) -> Sum:
    """The latent as a sum of smaller ones; raises CanonError with why there is none."""
    _, record = _measured("composition", [small, large], cases, store)
    table = _table("latents", record, store)
    own = table[table.latent == latent]
    atoms = zip(own.atom, own.weight, own.explained, strict=True)
    return Sum(record, tuple((int(atom), float(w), float(e)) for atom, w, e in atoms))


def chance(scores: Scores) -> tuple[str, ...]:
    """Sentences on whether meta-latents are more than those of random rows would be."""
    return tuple(_explaining(scores)) + sums(scores, "rows kept out", "meta-latents")


def _explaining(scores: Scores) -> Iterator[str]:
    seen = _beside(scores, "explained_variance", "null_covariance")
    held = _beside(scores, "heldout_explained_variance", "heldout_null")
    if seen is None:
        return
    sentence = (
        f"meta-latents explain {number(seen.value, 2)} of the rows they were trained on "
        f"({number(seen.null, 2)} of random rows with the same covariance)"
    )
    if held is not None:
        sentence += f" and {number(held.value, 2)} of rows kept out ({number(held.null, 2)})"
    if not (held or seen).more:
        yield f"No more than chance: {sentence}."
    else:
        yield f"{sentence[0].upper()}{sentence[1:]}."


def sums(scores: Scores, what: str, atoms: str, floor: float | None = None) -> tuple[str, ...]:
    """A sentence on how many are sums at all, beside how many random ones are, if measured.

    `floor` is the share that are sums of another seed's latents, where that was measured.
    """
    found = _beside(scores, "composed_share", "composed_null")
    if found is None:
        return ()
    excess = scores.get("composed_excess", {}).get("value")
    none = (
        not found.more
        or (excess is not None and excess <= 0)
        or (floor is not None and found.value <= floor)
    )
    beside = f"{number(found.null, 2)} by chance"
    beside += "" if excess is None else f", excess {number(excess, 2)}"
    beside += "" if floor is None else f"; {number(floor, 2)} of another seed's"
    head = "No sign of composition: " if none else ""
    return (f"{head}{number(found.value, 2)} of {what} are sums of {atoms} ({beside}).",)


def floor_of(sae: str, cases: Cases, store: Store) -> float | None:
    """The mean share of the SAE's latents that are sums of another seed's, if it was measured."""
    own = (
        store.measured(each["id"])
        for each in cases
        if each["metric"] == "composition"
        and each["over"].endswith(":seed")
        and sae in each["subject"]
    )
    shares = [record.scores["composed_share"]["value"] for record in own if record is not None]
    known = [share for share in shares if share is not None]
    return math.fsum(known) / len(known) if known else None


def _beside(scores: Scores, name: str, null: str) -> _Beside | None:
    pair = [scores.get(each, {}) for each in (name, null)]
    value, beside = (each.get("value") for each in pair)
    if value is None or beside is None:
        return None
    noise = math.hypot(*(each.get("stderr") or 0.0 for each in pair))
    return _Beside(value, beside, value - beside > 2 * noise)


def _measured(metric: str, subject: list[str], cases: Cases, store: Store) -> tuple[str, Record]:
    """The first measured case of a metric on a subject."""
    own = [each for each in cases if each["metric"] == metric and each["subject"] == subject]
    if not own:
        raise CanonError(f"the suite has no {metric} of {' and '.join(subject)}")
    for case in own:
        record = store.measured(case["id"])
        if record is not None:
            return str(case["label"]), record
    if any(store.error(case["id"]) is not None for case in own):
        raise CanonError(
            f"{metric} of {' and '.join(subject)} failed", hint="`show --errors` tells why."
        )
    raise CanonError(f"{metric} of {' and '.join(subject)} is not measured")


def _table(name: str, record: Record, store: Store) -> pd.DataFrame:
    import pandas as pd

    if name not in record.tables:
        newer = f": run {record.metric} version 2" if record.version < 2 else ""
        raise CanonError(
            f"the record of {record.metric} (version {record.version}) has no table '{name}'{newer}"
        )
    return pd.read_parquet(store.root / record.tables[name])


def _pairs(table: pd.DataFrame, column: str) -> dict[int, float]:
    ordered = table.sort_values(["weight", column], ascending=[False, True])
    return {
        int(one): float(weight)
        for one, weight in zip(ordered[column], ordered["weight"], strict=True)
    }
