"""The arguments of `canon_measure`: a case, and the bench that can measure it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from saebench_canon.plugin.metric import Metric
    from saebench_canon.plugin.record import Record


class Case(Protocol):
    """One metric on one subject with one seed."""

    @property
    def metric(self) -> Metric:
        """What is measured."""

    @property
    def label(self) -> str:
        """The name of its table in the suite."""

    @property
    def name(self) -> str:
        """The subject's name: its members' names, joined by plus signs."""

    @property
    def axes(self) -> Mapping[str, Any]:
        """Each axis with the members' value, or the list of their values if they differ."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The metric's settings, defaults included."""

    @property
    def seed(self) -> int:
        """The case's seed."""


class Bench(Protocol):
    """Measures cases."""

    def compute(self, case: Any) -> Record:
        """Run the case's metric on its inputs."""
