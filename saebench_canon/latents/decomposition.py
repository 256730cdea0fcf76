"""What a latent is made of, according to the records of a run."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.metric import Metric, with_role
from saebench_canon.plugin.record import Record
from saebench_canon.plugin.row import ListedCase

if TYPE_CHECKING:
    import pandas as pd

Cases = Sequence[ListedCase]


@dataclass(frozen=True, eq=False)
class MetaSae:
    """A measured meta-SAE of one SAE: the meta-latents of every latent and what they explain."""

    label: str
    record: Record
    weights: pd.DataFrame  # latent, meta_latent, weight; heaviest first within a latent
    latents: pd.DataFrame  # latent, explained
    meta_latents: pd.DataFrame  # meta_latent, latents, …

    def of_latent(self, latent: int) -> dict[int, float]:
        """The latent's meta-latents and their weights, heaviest first."""
        return _pairs(self.weights[self.weights.latent == latent], "meta_latent")

    def of_meta_latent(self, meta_latent: int) -> dict[int, float]:
        """The latents that use a meta-latent and its weights there, heaviest first."""
        return _pairs(self.weights[self.weights.meta_latent == meta_latent], "latent")

    def explained(self, latent: int) -> float | None:
        """The share of the latent's row that its meta-latents explain."""
        shares = self.latents.loc[self.latents.latent == latent, "explained"]
        return None if shares.empty or not math.isfinite(shares.iloc[0]) else float(shares.iloc[0])


@dataclass(frozen=True, eq=False)
class Sum:
    """A latent as a sum of latents of a smaller SAE: atom, weight, share explained so far."""

    record: Record
    atoms: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, eq=False)
class Records:
    """The records of a run: its cases, the store, and the known metrics."""

    cases: Cases
    store: Store
    metrics: Collection[Metric]

    def meta_latents(self, sae: str) -> MetaSae:
        """The SAE's meta-SAE with its decomposition; raises CanonError if there is none."""
        label, record = self._first("meta_latents", [sae])
        names = ("decomposition", "latents", "meta_latents")
        return MetaSae(label, record, *(self._table(name, record) for name in names))

    def sum_of(self, small: str, large: str, latent: int) -> Sum:
        """The latent as a sum of smaller ones; raises CanonError if there is none."""
        _, record = self._first("sums", [small, large])
        table = self._table("latents", record)
        rows = table[table.latent == latent]
        atoms = zip(rows.atom, rows.weight, rows.explained, strict=True)
        return Sum(record, tuple((int(atom), float(w), float(e)) for atom, w, e in atoms))

    def floor(self, sae: str) -> float | None:
        """The mean share of the SAE's latents that are sums of another seed's, if measured."""
        names = self._names("sums")
        records = (
            self.store.measured(case.id or "")
            for case in self.cases
            if case.metric in names and case.over.endswith(":seed") and sae in case.subject
        )
        shares = [record.scores["composed_share"]["value"] for record in records if record]
        known = [share for share in shares if share is not None]
        return math.fsum(known) / len(known) if known else None

    def _names(self, role: str) -> list[str]:
        return [metric.name for metric in with_role(role, self.metrics)]

    def _first(self, role: str, subject: list[str]) -> tuple[str, Record]:
        """The first measured case of a subject by a metric with the role."""
        names = self._names(role)
        cases_named = f"{' or '.join(names)} of {' and '.join(subject)}"
        cases = [
            case for case in self.cases if case.metric in names and list(case.subject) == subject
        ]
        if not cases:
            raise CanonError(f"the suite has no {cases_named}")
        for case in cases:
            record = self.store.measured(case.id or "")
            if record is not None:
                return case.label, record
        if any(self.store.error(case.id or "") is not None for case in cases):
            raise CanonError(f"{cases_named} failed", hint="`show --errors` says why.")
        raise CanonError(f"{cases_named} is not measured")

    def _table(self, name: str, record: Record) -> pd.DataFrame:
        import pandas as pd

        if name not in record.tables:
            version = next(
                metric.version for metric in self.metrics if metric.name == record.metric
            )
            newer = f"; run {record.metric} version {version}" if record.version < version else ""
            raise CanonError(
                f"the record of {record.metric} (version {record.version}) has no table "
                f"'{name}'{newer}"
            )
        with self.store.reading():
            return pd.read_parquet(self.store.root / record.tables[name])


def _pairs(table: pd.DataFrame, column: str) -> dict[int, float]:
    ordered = table.sort_values(["weight", column], ascending=[False, True])
    return {
        int(index): float(weight)
        for index, weight in zip(ordered[column], ordered["weight"], strict=True)
    }
