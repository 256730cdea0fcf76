"""Tokens as one line of text shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import saebench_canon.packaged
from saebench_canon.latents.token_text import (
    columns,
    first_columns,
    label_text,
    last_columns,
    quoted,
    token_text,
    visible,
)

TINY_LM = Path(saebench_canon.packaged.__file__).parent / "tiny-lm"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY_LM, local_files_only=True)


def test_tokens_read_as_their_text_and_parts_of_a_letter_as_bytes(tokenizer: Any) -> None:
    text = " the naïve ☃\n"
    ids = tokenizer.encode(text, add_special_tokens=False)
    shown = [token_text(tokenizer, token) for token in ids]
    assert shown[0] == " the"
    assert shown[-1] == "\n"
    spelt = [byte for token in shown if token[0] == "<" for byte in token.strip("<>").split()]
    assert bytes.fromhex("".join(spelt)).decode() == "ï☃"


class Pieces:
    """A tokenizer as SentencePiece makes them: a first space is lost, bytes are <0xE2>."""

    pieces = ("▁the", "<0xE2>", "ing")

    def decode(self, ids: list[int], **_: object) -> str:
        return ("the", "\N{REPLACEMENT CHARACTER}", "ing")[ids[0]]

    def convert_ids_to_tokens(self, token: int) -> str | None:
        return self.pieces[token] if token < 3 else None


def test_sentencepiece_keeps_its_spaces_and_bytes() -> None:
    assert [token_text(Pieces(), token) for token in range(3)] == [" the", "<0xE2>", "ing"]


def test_what_breaks_a_line_has_a_sign() -> None:
    assert visible("a\n\tb\r\x07\u200b") == "a⏎⇥b␍\\x07\\u200b"
    assert visible("naïve ☃ 日本") == "naïve ☃ 日本"


def test_names_have_no_spaces_around_them_and_quotes_show_all() -> None:
    assert [label_text(token) for token in (" the", "  ", "\n", "\n if")] == [
        "the",
        "␣␣",
        "⏎",
        "if",
    ]
    assert [quoted(token) for token in (" the", "\n", "'", "☃")] == [
        "' the'",
        "'\\n'",
        '"\'"',
        "'☃'",
    ]


def test_text_is_cut_to_columns_where_wide_letters_take_two() -> None:
    assert columns("日本e\u0301") == 5
    assert first_columns("日本日本", 6) == "日本…"
    assert last_columns("日本日本", 6) == "…日本"
    assert first_columns("abc", 3) == last_columns("abc", 3) == "abc"
    for width in range(1, 9):
        assert columns(first_columns("a日b本c", width)) <= width
        assert columns(last_columns("a日b本c", width)) <= width
