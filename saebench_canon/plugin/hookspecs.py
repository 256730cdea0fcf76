"""The hooks a plugin may implement: nouns are collected, verbs are hooked (pluggy)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from saebench_canon.plugin.adapter import Adapter
    from saebench_canon.plugin.data import DataKind
    from saebench_canon.plugin.evidence import Evidence
    from saebench_canon.plugin.input import Input
    from saebench_canon.plugin.measuring import Bench, Case
    from saebench_canon.plugin.metric import Metric
    from saebench_canon.plugin.question import Question
    from saebench_canon.plugin.record import Record
    from saebench_canon.plugin.report import Report
    from saebench_canon.plugin.trainer import Trainer

PROJECT = "saebench_canon"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def canon_adapters() -> Iterable[Adapter]:  # type: ignore[empty-body]
    """Adapters, one for each URI scheme."""


@hookspec
def canon_data() -> Iterable[DataKind]:  # type: ignore[empty-body]
    """Kinds of data, each named by a key of a suite's data tables."""


@hookspec
def canon_inputs() -> Iterable[Input]:  # type: ignore[empty-body]
    """Inputs that metrics take by name."""


@hookspec
def canon_metrics() -> Iterable[Metric]:  # type: ignore[empty-body]
    """Metrics that suites may name."""


@hookspec
def canon_trainers() -> Iterable[Trainer]:  # type: ignore[empty-body]
    """Architectures and objectives that a suite's train table may name."""


@hookspec
def canon_questions() -> Iterable[Question]:  # type: ignore[empty-body]
    """Questions that turn the scores of a run into answers."""


@hookspec
def canon_reports() -> Iterable[Report]:  # type: ignore[empty-body]
    """Ways to write the tables of a run into a file."""


@hookspec(firstresult=True)
def canon_claim(path: Path) -> str | None:
    """The ref of a bare path whose checkpoint format the plugin knows, such as `saelens:PATH`."""


@hookspec(firstresult=True)
def canon_recognise(path: Path) -> str | None:
    """The scheme of the format that an unclaimed path looks like."""


@hookspec(firstresult=True)
def canon_measure(case: Case, bench: Bench) -> Record | None:
    """Measure a case; wrap it to time, profile or trace."""


@hookspec
def canon_recorded(record: Record) -> None:
    """Called with each record that has just been stored."""


@hookspec(firstresult=True)
def canon_label(evidence: Evidence) -> str | None:
    """The label of a latent or meta-latent on cards; None leaves it to the next plugin."""
