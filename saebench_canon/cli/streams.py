"""Output without what a terminal would obey, in any encoding, to readers that stop reading."""

from __future__ import annotations

import codecs
import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from saebench_canon.errors import printable

COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
LEFT = (errno.EPIPE, errno.EIO)
ERRORS = "saebench_canon.plain"
PLAIN = str.maketrans({
    "─": "-", "│": "|", "–": "-", "—": "-", "−": "-", "→": ">", "↑": "^", "↓": "v", "×": "x",
    "†": "+", "·": ".", "²": "2", "’": "'", "“": '"', "”": '"', "‖": "|",
    "±": "+-", "≤": "<=", "≥": ">=", "≈": "~", "…": "...",
})  # fmt: skip


def _plain(error: UnicodeError) -> tuple[str, int]:
    """The nearest ASCII for characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "replace").decode("ascii"), error.end


def allow_any_encoding() -> None:
    """Print ASCII in place of what the encoding of stdout or stderr lacks, instead of failing."""
    codecs.register_error(ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=ERRORS)


class _PrintableOutput:
    """A text stream that shows control characters as text instead of sending them on."""

    def __init__(self, stream: TextIO, *, colours: bool) -> None:
        self._stream = stream
        self._colours = colours

    def write(self, text: str) -> int:
        parts = COLOUR.split(text) if self._colours else [text]
        self._stream.write("".join(
            part if index % 2 else printable(part) for index, part in enumerate(parts)
        ))  # fmt: skip
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printable_output(*, colours: bool) -> Iterator[None]:
    """Inside the block, no name or message makes the terminal do anything but show it.

    `colours` lets colours through, for pytest; what a run prints of its own passes `printable`.
    """
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        stream and _PrintableOutput(stream, colours=colours) for stream in streams
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


def is_coloured(words: Sequence[str]) -> bool:
    """Whether pytest may colour what the command prints."""
    forced = os.environ.get("PY_COLORS") == "1" or os.environ.get("FORCE_COLOR")
    return words[:1] == ["run"] and bool(
        forced or sys.stdout.isatty() or any(word.startswith("--color") for word in words)
    )


class _Output:
    """A text stream that discards what is written after its reader has left.

    That is a program such as `head`, or a terminal that was closed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._discard(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error: OSError) -> None:
        """Discard all from now on; raises any error but that of a reader who left."""
        if error.errno not in LEFT:
            raise error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def without_reader() -> Iterator[None]:
    """Inside the block, work goes on when the reader of stdout leaves."""
    stream = sys.stdout
    output = _Output(stream)
    sys.stdout = output
    try:
        yield
    finally:
        output.flush()
        sys.stdout = stream
