"""Progress of long work, for a listener that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int, int], None]  # title, done, total

_listener: ContextVar[Listener | None] = ContextVar("canon_progress", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the progress of work inside the block to the listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def track(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """The items; after each, the listener gets the number done."""
    listener = _listener.get()
    if listener is None:
        yield from items
        return
    listener(title, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        listener(title, done, total)


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """Tell the listener that another process is making what this one needs."""
    listener = _listener.get()
    if listener is not None:
        listener(f"waiting for {title}", 0, 0)
    yield
