"""What a suite holds, as typed values: data, SAEs, metrics, gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saebench_canon.plugin.data import DataSpec, Dtype
from saebench_canon.plugin.question import Margins
from saebench_canon.plugin.source import SaeSource
from saebench_canon.suite.axes import Axes, AxisValue, Condition


@dataclass(frozen=True, eq=False)
class SaeSpec:
    """One SAE of a suite: where it comes from, and on what it is measured."""

    name: str
    axes: Axes
    data: str | None
    source: SaeSource
    dtype: Dtype
    where: str


@dataclass(frozen=True, eq=False)
class MetricSpec:
    """One metric table of a suite."""

    metric: str
    label: str
    over: str
    peers: str | None
    conditions: Mapping[str, Condition]
    settings: Mapping[str, Any]
    seeds: Sequence[int]
    where: str
    floors: bool = True  # whether what questions need besides is planned, too
    planned: bool = False  # for a question, and not by the suite


@dataclass(frozen=True)
class GateSpec:
    """A bound that a score must satisfy."""

    score: str
    require: str
    where: str


@dataclass(frozen=True, eq=False)
class ReferenceSpec:
    """Published values of a score along an axis, printed next to the measured values."""

    score: str
    axis: str
    values: Mapping[AxisValue, float]
    source: str
    where: str
    conditions: Mapping[str, Condition] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Suite:
    """A parsed suite file."""

    name: str
    version: int
    path: Path | None
    data: Mapping[str, DataSpec]
    saes: Sequence[SaeSpec]
    metrics: Sequence[MetricSpec]
    gates: Sequence[GateSpec]
    references: Sequence[ReferenceSpec] = ()
    questions: Mapping[str, Margins] = field(
        default_factory=dict
    )  # that the suite asks, with all margins
