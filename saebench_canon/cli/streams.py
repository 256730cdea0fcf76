"""Output on terminals that cannot show every character, and to readers that stop reading."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

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


class _Output:
    """A text stream that discards what is written after its reader, such as `head`, has left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
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
