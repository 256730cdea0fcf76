"""Whether the scores of a run satisfy the gates of its suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from saebench_canon.plugin.row import Row
from saebench_canon.suite.axes import condition
from saebench_canon.suite.specs import GateSpec


def broken_gates(gates: Sequence[GateSpec], rows: Sequence[Row]) -> Iterator[str]:
    """A sentence for each score that breaks a gate, and for each gate that nothing measured."""
    for gate in gates:
        label, _, name = gate.score.partition(".")
        scores = [row for row in rows if row.label == label and row.score == name]
        measured = [row for row in scores if row.value is not None]
        if not measured:
            yield f"gate {gate.score} {gate.require}: nothing measured"
        holds = condition(gate.require, where=gate.where)
        for row in measured:
            assert row.value is not None
            if not holds(row.value):
                subject = "+".join(row.subject)
                yield f"gate {gate.score} {gate.require}: {subject} has {row.value:.4g}"
