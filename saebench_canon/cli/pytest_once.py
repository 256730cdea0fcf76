"""What a run prints of failures and warnings: each text once, with the cases that it is about."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from saebench_canon.cli.pytest_plugin import SESSION
from saebench_canon.errors import one_line

PRINTED = pytest.StashKey[set[str]]()  # ids of the cases whose failures are printed above tables
NAMED = 3  # cases in a heading
SHOWN = 10  # warnings


def pytest_configure(config: pytest.Config) -> None:
    """Collect the warnings of a run; workers send theirs to the process that prints."""
    if not hasattr(config, "workerinput") and SESSION in config.stash:
        config.pluginmanager.register(Once(), "saebench-canon-once")


class Once:
    """Prints each failure and each warning of a run once."""

    def __init__(self) -> None:
        self.warnings: Counter[str] = Counter()

    def pytest_warning_recorded(self, warning_message: Any) -> None:
        """Count a warning by its text."""
        text = f"{warning_message.category.__name__}: {warning_message.message}"
        self.warnings[one_line(text)] += 1

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(
        self, terminalreporter: Any, config: pytest.Config
    ) -> Generator[None, None, None]:
        """Print failures that have one text together, then the tables, then warnings."""
        failed = terminalreporter.stats.get("failed", [])
        if failed and config.option.tbstyle != "no":
            config.stash[PRINTED] = {case for report in failed for case in _ids(report)}
            terminalreporter.stats["failed"] = _together(failed)
        try:
            yield
        finally:
            if failed:
                terminalreporter.stats["failed"] = failed
        for text, count in self.warnings.most_common(SHOWN):
            times = f" ({count} times)" if count > 1 else ""
            terminalreporter.write_line(f"warning: {text}{times}", yellow=True)
        if len(self.warnings) > SHOWN:
            terminalreporter.write_line(f"and {len(self.warnings) - SHOWN} other warnings")


def _ids(report: Any) -> list[str]:
    return [value for key, value in report.user_properties if key == "id"]


def _together(failed: Sequence[Any]) -> list[Any]:
    """One report for each text, named after all cases that failed with it."""
    groups: dict[str, list[Any]] = {}
    for report in failed:
        groups.setdefault(str(report.longrepr), []).append(report)
    together = []
    for reports in groups.values():
        first = copy.copy(reports[0])
        names = [str(report.head_line) for report in reports]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        first.location = (*first.location[:2], ", ".join(names[:NAMED]) + more)
        together.append(first)
    return together
