"""How tokens look in a line of text: line ends, tabs and bytes are made visible."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

SIGNS = {"\n": "⏎", "\t": "⇥", "\r": "␍", "\N{NO-BREAK SPACE}": "⍽"}
LOST = "\N{REPLACEMENT CHARACTER}"


def token_text(tokenizer: Any, token: int) -> str:
    """The text of a token; the bytes of an incomplete letter as <E2 80>."""
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    piece = tokenizer.convert_ids_to_tokens(token)
    if piece is None:  # the embedding has more rows than the tokenizer has tokens
        return f"<{token}>"
    if piece.startswith("▁") and not text.startswith(" "):  # dropped at the start of a text
        return f" {text}"
    if LOST not in text:
        return text
    if piece.startswith("<0x"):
        return str(piece)
    bytes_of = _letters_of_bytes()
    if all(letter in bytes_of for letter in piece):
        return f"<{' '.join(f'{bytes_of[letter]:02X}' for letter in piece)}>"
    return str(piece)


def visible(text: str) -> str:
    """The text on one line, with signs for what would break it."""
    return "".join(
        SIGNS.get(letter) or (letter if letter.isprintable() else ascii(letter)[1:-1])
        for letter in text
    )


def label_text(text: str) -> str:
    """A token in a label: without surrounding spaces; a token of spaces as signs."""
    return visible(text.strip() if text.strip() else text.replace(" ", "␣"))


def quoted(text: str) -> str:
    """A token exactly as it is, in quotes."""
    return repr(text)


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def first_columns(text: str, width: int) -> str:
    """The beginning of the text that fits, ending in … if it was cut."""
    if columns(text) <= width:
        return text
    while columns(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def last_columns(text: str, width: int) -> str:
    """The end of the text that fits, starting with … if it was cut."""
    if columns(text) <= width:
        return text
    while columns(text) > width - 1:
        text = text[1:]
    return f"…{text}"


@cache
def _letters_of_bytes() -> dict[str, int]:
    """The byte of each letter by which byte-level tokenizers write bytes (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }
