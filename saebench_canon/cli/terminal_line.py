"""One line on the terminal that is rewritten while something runs."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TextIO

from saebench_canon.errors import one_line

CLEAR = "\r\x1b[K"  # to the start of the line, then delete to its end
UNKNOWN_WIDTH = 100  # columns, where the terminal does not say


class TerminalLine:
    """A line on a stream: rewritten in place on a terminal, a new line each time elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_terminal = stream.isatty()

    def show(self, text: str) -> None:
        """Show the text in place of the last one."""
        text = one_line(text)
        self._print(f"\r{self._cut(text)}\x1b[K" if self.is_terminal else f"{text}\n")

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self.is_terminal:
            self._print(CLEAR)

    def _print(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a closed stream must not stop the work
            self._stream.write(text)
            self._stream.flush()

    def _cut(self, text: str) -> str:
        """The text shortened to the width of the terminal."""
        width = UNKNOWN_WIDTH
        with suppress(OSError, ValueError):
            width = os.get_terminal_size(self._stream.fileno()).columns
        return text if len(text) < width else text[: width - 2] + "…"
