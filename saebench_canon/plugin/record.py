"""A record: a measured case, without names, as in its JSON file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.metric import UNITS, Mark, Measurement, Metric, Undefined, Value


@dataclass(frozen=True)
class Record:
    """A measured case: every score with its error and sample size, and its provenance.

    Its id is the fingerprint of `metric`, `version`, `seed`, the digests of `subject` and `peers`,
    and `identity` (the settings with the content of SAEs that they name, and the fingerprints of
    the inputs). `tables` are paths in the store, `digests` the sizes and SHA-256 of these files.
    """

    id: str
    metric: str
    version: int
    settings: Mapping[str, Any]
    subject: tuple[Mapping[str, str], ...]
    peers: tuple[Mapping[str, str], ...]
    seed: int
    scores: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, str]
    marks: tuple[Mapping[str, str], ...]
    provenance: Mapping[str, Any]
    identity: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """The record of plain data."""
        return cls(
            **{
                **data,
                "subject": tuple(data["subject"]),
                "peers": tuple(data["peers"]),
                "marks": tuple(data["marks"]),
            }
        )


def scores_of(
    metric: Metric, measured: Measurement | Mapping[str, float | Value | Undefined]
) -> dict[str, dict[str, Any]]:
    """Every declared score as plain data; an undefined score is null with a reason.

    Raises CanonError for a score that is missing, undeclared or not finite.
    """
    scores = measured.scores if isinstance(measured, Measurement) else measured
    declared = {score.name for score in metric.scores}
    if undeclared := set(scores) - declared:
        raise CanonError(
            f"metric '{metric.name}' returned '{min(undeclared)}', which it does not declare"
        )
    if missing := declared - set(scores):
        raise CanonError(f"metric '{metric.name}' did not return '{min(missing)}'")
    return {name: _plain(metric, name, scores[name]) for name in sorted(scores)}


def _plain(metric: Metric, name: str, score: float | Value | Undefined) -> dict[str, Any]:
    if isinstance(score, Undefined):
        return {"value": None, "stderr": None, "n": None, "unit": None, "reason": score.reason}
    value = score if isinstance(score, Value) else Value(float(score))
    numbers = [value.value, *([] if value.stderr is None else [value.stderr])]
    if not all(math.isfinite(number) for number in numbers):
        raise CanonError(f"metric '{metric.name}': '{name}' is not a finite number")
    if value.unit is not None and value.unit not in UNITS:
        raise CanonError(f"metric '{metric.name}': '{name}' has the unknown unit "
                         f"'{value.unit}'", hint=nearest(value.unit, UNITS))  # fmt: skip
    stderr = None if value.stderr is None else float(value.stderr)
    n = None if value.n is None else int(value.n)
    return {"value": float(value.value), "stderr": stderr, "n": n, "unit": value.unit}


def marks_of(measured: Measurement | Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    """The remarks of a measurement as plain data."""
    marks: tuple[Mark, ...] = measured.marks if isinstance(measured, Measurement) else ()
    return tuple(asdict(mark) for mark in marks)
