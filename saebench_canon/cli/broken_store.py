"""A run whose store cannot be written or read ends there, with the exit code of a mistake."""

from __future__ import annotations

from typing import Any

import pytest

from saebench_canon.errors import StoreError, one_line

PROPERTY = "store"  # of a test report, which workers send to the controller
STOPPED = "the store cannot be used"


class BrokenStore:
    """Remembers that the store failed a case or the tables; in the controller, of any worker."""

    def __init__(self) -> None:
        self._is_broken = False
        self._sentence: str | None = None  # where no case's failure says it

    def add(self, sentence: str) -> None:
        """The store failed after the cases."""
        if not self._is_broken:
            self._is_broken, self._sentence = True, sentence

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at the report of a case."""
        self._is_broken |= any(key == PROPERTY for key, _ in report.user_properties)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Any:
        """Set the exit code, after all others."""
        result = yield
        if self._is_broken:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        return result

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the sentence, if nothing else has."""
        if self._sentence is not None:
            terminalreporter.write_line(one_line(self._sentence), red=True)


BROKEN_STORE = pytest.StashKey[BrokenStore]()


def stop(item: pytest.Item, error: StoreError) -> None:
    """Run no case after this one."""
    item.user_properties.append((PROPERTY, str(error)))
    stopping: Any = item.session
    stopping.shouldstop = STOPPED
