"""Long work says how far it is; whoever shows it (a terminal, nobody) listens here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int, int], None]  # what, done, total

_listener: ContextVar[Listener | None] = ContextVar("canon_progress", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the progress of the work inside the block to the listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, telling the listener after each how many of the total are done."""
    listener = _listener.get()
    if listener is None:
        yield from items
        return
    listener(what, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        listener(what, done, total)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Tell the listener that another process is making what this one needs."""
    listener = _listener.get()
    if listener is not None:
        listener(f"waiting for {what}", 0, 0)
    yield
