"""The built-in reports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from saebench_canon.plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from saebench_canon.plugin.report import Report


@hookimpl
def canon_reports() -> Iterable[Report]:
    """Tables as files."""
    from saebench_canon.reports.table_files import REPORTS

    return REPORTS
