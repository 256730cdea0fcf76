"""What a run's records say a latent is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.record import Record

if TYPE_CHECKING:
    import pandas as pd

Cases = Sequence[Mapping[str, Any]]


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
