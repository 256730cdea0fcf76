"""How long cases of a metric took before: the mean over the records that a store has."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from saebench_canon.bench.store import Store
from saebench_canon.plugin.metric import Metric


@dataclass(frozen=True)
class Earlier:
    """Seconds of a case of a metric besides making its inputs, mean over so many records."""

    metric: str
    seconds: float
    count: int


def earlier(metric: Metric, store: Store) -> Earlier | None:
    """The seconds of the metric's records of this version; None without any."""
    seconds = [
        float(record.provenance["seconds"])
        for record in store.records()
        if (record.metric, record.version) == (metric.name, metric.version)
        and "seconds" in record.provenance
    ]
    return Earlier(metric.name, fsum(seconds) / len(seconds), len(seconds)) if seconds else None
