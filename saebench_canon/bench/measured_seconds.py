"""How long cases of a metric took: the mean over the records in a store."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from saebench_canon.bench.store import Store
from saebench_canon.plugin.metric import Metric


@dataclass(frozen=True)
class MeasuredSeconds:
    """Mean seconds of a case of a metric, without its inputs, over `count` records."""

    metric: str
    seconds: float
    count: int


def measured_seconds(metric: Metric, store: Store) -> MeasuredSeconds | None:
    """The mean over the records of this version of the metric; None if there are none."""
    seconds = [
        float(record.provenance["seconds"])
        for record in store.records()
        if (record.metric, record.version) == (metric.name, metric.version)
        and "seconds" in record.provenance
    ]
    if not seconds:
        return None
    return MeasuredSeconds(metric.name, fsum(seconds) / len(seconds), len(seconds))
