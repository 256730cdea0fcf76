"""What a conformance check finds: a sentence for each thing looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from saebench_canon.errors import CanonError, NotOffline

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what should hold, whether it does, and what was seen."""

    check: str
    result: Literal["ok", "failed", "skipped"]
    told: str

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; what does not apply is not."""
        return self.result != "failed"


@dataclass(frozen=True)
class Findings:
    """The findings on one adapter or metric."""

    of: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings that say what is wrong."""
        return tuple(each for each in self.findings if not each.ok)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.failed

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, check: str) -> Finding:
        return next(each for each in self.findings if each.check == check)

    def __str__(self) -> str:
        count = f"{len(self.failed)} of {len(self.findings)} checks failed"
        lines = [f"  {each.check}: {each.told}" for each in self.failed]
        return "\n".join([f"{self.of}: {count}", *lines])

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
    """One thing to look at: what should hold, and the function that looks."""

    title: str
    look: Callable[[Subject], str]

    def __call__(self, subject: Subject) -> Finding:
        """The finding; an error in what is looked at is one, too, but for a hub out of reach."""
        try:
            return Finding(self.title, "ok", self.look(subject))
        except SkippedError as reason:
            return Finding(self.title, "skipped", str(reason))
        except NotOffline:
            raise
        except (WrongError, CanonError) as error:
            return Finding(self.title, "failed", str(error))
        except Exception as error:  # a plugin's own code is called, and may fail in any way
            return Finding(self.title, "failed", f"{type(error).__name__}: {error}")


def check(title: str) -> Callable[[Callable[[Subject], str]], Check[Subject]]:
    """Make a check of a function that returns what it saw or raises what is wrong."""

    def decorate(look: Callable[[Subject], str]) -> Check[Subject]:
        return Check(title, look)

    return decorate


def report(of: str, checks: Iterable[Check[Subject]], subject: Subject) -> Findings:
    """The findings of all checks, in order."""
    return Findings(of, tuple(each(subject) for each in checks))
