"""What conformance checks find: one sentence for each check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from saebench_canon.errors import CanonError, NotOffline

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Finding:
    """The result of one check: what should hold, whether it does, and details."""

    check: str
    result: Literal["ok", "failed", "skipped"]
    message: str

    @property
    def ok(self) -> bool:
        """Whether the check did not fail; a skipped check is ok."""
        return self.result != "failed"


@dataclass(frozen=True)
class Findings:
    """The findings on one adapter or metric."""

    subject: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings of failed checks."""
        return tuple(finding for finding in self.findings if not finding.ok)

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, check: str) -> Finding:
        return next(finding for finding in self.findings if finding.check == check)

    def __str__(self) -> str:
        count = f"{len(self.failed)} of {len(self.findings)} checks failed"
        lines = [f"  {finding.check}: {finding.message}" for finding in self.failed]
        return "\n".join([f"{self.subject}: {count}", *lines])

    def assert_ok(self) -> Findings:
        """The findings themselves; raises AssertionError with a line for each check that failed."""
        __tracebackhide__ = True
        if self.failed:
            raise AssertionError(str(self))
        return self


class WrongError(Exception):
    """What a check raises when something does not hold."""


class SkippedError(Exception):
    """What a check raises when it does not apply, with the reason."""


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """One check: what should hold, and the function that tests it."""

    title: str
    test: Callable[[Subject], str]

    def __call__(self, subject: Subject) -> Finding:
        """The finding; an error of the plugin is a failed one, except for a hub out of reach."""
        try:
            return Finding(self.title, "ok", self.test(subject))
        except SkippedError as reason:
            return Finding(self.title, "skipped", str(reason))
        except NotOffline:
            raise
        except (WrongError, CanonError) as error:
            return Finding(self.title, "failed", str(error))
        except Exception as error:  # a plugin's own code is called, and may fail in any way
            return Finding(self.title, "failed", f"{type(error).__name__}: {error}")


def check(title: str) -> Callable[[Callable[[Subject], str]], Check[Subject]]:
    """Make a check of a function that returns a message, or raises WrongError or SkippedError."""

    def decorate(test: Callable[[Subject], str]) -> Check[Subject]:
        return Check(title, test)

    return decorate


def report(name: str, checks: Iterable[Check[Subject]], subject: Subject) -> Findings:
    """The findings of all checks, in order."""
    return Findings(name, tuple(check(subject) for check in checks))
