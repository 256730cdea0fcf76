"""The line that shows progress is rewritten in place on a terminal only."""

from __future__ import annotations

import io

import pytest

from saebench_canon.cli.terminal_line import CLEAR, UNKNOWN_WIDTH, TerminalLine


class Terminal(io.StringIO):
    """A terminal that does not say how wide it is."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_line_is_rewritten_and_cleared() -> None:
    stream = Terminal()
    line = TerminalLine(stream)
    for text in ("1/3 cases", "2/3 cases"):
        line.show(text)
    line.clear()
    assert stream.getvalue() == f"\r1/3 cases\x1b[K\r2/3 cases\x1b[K{CLEAR}"


def test_elsewhere_each_text_is_a_line_and_nothing_is_cleared() -> None:
    stream = io.StringIO()
    line = TerminalLine(stream)
    for text in ("1/3 cases", "2/3 cases"):
        line.show(text)
    line.clear()
    assert stream.getvalue() == "1/3 cases\n2/3 cases\n"


@pytest.mark.parametrize("length", [UNKNOWN_WIDTH - 1, UNKNOWN_WIDTH, 3 * UNKNOWN_WIDTH])
def test_a_long_text_is_cut_to_the_width(length: int) -> None:
    stream = Terminal()
    TerminalLine(stream).show("x" * length)
    shown = stream.getvalue().removeprefix("\r").removesuffix("\x1b[K")
    assert len(shown) < UNKNOWN_WIDTH
    assert shown.endswith("…") == (length >= UNKNOWN_WIDTH)


def test_a_closed_stream_stops_nothing() -> None:
    stream = Terminal()
    line = TerminalLine(stream)
    stream.close()
    line.show("1/3 cases")
    line.clear()
    assert stream.closed
