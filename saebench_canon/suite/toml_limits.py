"""Which TOML a suite may hold, so that it is quickly read and what it says can be printed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import date, time
from typing import Any

from saebench_canon.errors import UNPRINTABLE, CanonError

BYTES = 2**20
DEPTH = 64  # of tables in tables, and of the words of one key
WHOLE = 2**63  # whole numbers of TOML have 64 bits
# tomllib's memory grows with the square of the words of a key
LONG_KEY = re.compile(
    rf"""(?<![\w-])(?>(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){{{DEPTH},}}"""
)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        TOMLDecodeError: the text is not TOML.
        CanonError: it is larger, deeper or stranger than any suite.
    """
    if len(text) > BYTES:
        raise CanonError(f"a suite has at most {BYTES:,} characters, and this is larger",
                         where=where)  # fmt: skip
    if LONG_KEY.search(text):
        raise _too_deep(where)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:  # an impossible date, or a number of thousands of digits
        raise CanonError(f"the file has a value that cannot be read: {error}",
                         where=where) from None  # fmt: skip
    check_values(tables, where)
    return tables


def check_values(tables: dict[str, Any], where: str) -> None:
    """Raise CanonError for a value that no key of a suite takes."""
    for keys, value in _values(tables, where):
        key = ".".join(keys)
        if isinstance(value, str) and UNPRINTABLE.search(value):
            raise CanonError(f"'{key}' holds a control character, {value!r}", where=where)
        if type(value) is int and not -WHOLE <= value < WHOLE:
            raise CanonError(f"'{key}' is a whole number of more than 64 bits", where=where)
        if isinstance(value, date | time):
            raise CanonError(f"'{key}' is a date or a time, which a suite has no use for, {value}",
                             where=where, hint="Write it in quotes.")  # fmt: skip


def _values(tables: dict[str, Any], where: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value with its keys, and every key as a value; tables are not values."""
    entries: list[tuple[tuple[str, ...], Any, int]] = [((), tables, 0)]
    while entries:
        keys, value, depth = entries.pop()
        if depth > DEPTH:
            raise _too_deep(where)
        if isinstance(value, dict):
            for key in value:
                yield (*keys, "…"), key
            inner = [((*keys, key), entry, depth + 1) for key, entry in value.items()]
            entries += reversed(inner)
        elif isinstance(value, list):
            entries += [(keys, entry, depth + 1) for entry in reversed(value)]
        else:
            yield keys, value


def _too_deep(where: str) -> CanonError:
    return CanonError(f"tables and lists are nested more than {DEPTH} deep", where=where)
