"""How a case is measured if no plugin measures it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from saebench_canon.plugin.measuring import Bench, Case
    from saebench_canon.plugin.record import Record


@hookimpl(trylast=True)
def canon_measure(case: Case, bench: Bench) -> Record:
    """Run the metric on its inputs."""
    return bench.compute(case)
