"""What a measurement says: its numbers."""

from __future__ import annotations

from saebench_canon.plugin.metric import Measurement, Undefined, Value


def value(measurement: Measurement, name: str) -> float:
    """The number of a score, which must be defined."""
    score = measurement.scores[name]
    assert not isinstance(score, Undefined), f"{name}: {score.reason}"
    return score.value if isinstance(score, Value) else float(score)


def values(measurement: Measurement) -> dict[str, float | str]:
    """All scores by name: numbers, and the reasons of those that are undefined."""
    return {
        name: score.reason if isinstance(score, Undefined) else value(measurement, name)
        for name, score in measurement.scores.items()
    }
