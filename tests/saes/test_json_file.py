"""JSON that strangers write: whatever is wrong with it is a sentence that names the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from saebench_canon.errors import CanonError
from saebench_canon.saes.weights.json_file import read_json, read_value, whole_number

DEEP = b'{"a": ' * 100_000 + b"1" + b"}" * 100_000
FAULTS = {
    b"": "not JSON", b"{": "not JSON", b"[1]": "not a JSON object", b"null": "not a JSON object",
    b'"x"': "not a JSON object", b"\xff{}": "not text in UTF-8", DEEP: "nested too deep",
    b"[" * 100_000: "nested too deep", b'{"a": ' * 70 + b"[1]" + b"}" * 70: "nested too deep",
    b'{"a": 1' + b"0" * 5000 + b"}": "not JSON", '{"a": 1}'.encode("utf-16"): "not text in UTF-8",
}  # fmt: skip


@pytest.mark.parametrize("content", FAULTS)
def test_a_fault_is_a_sentence_with_the_files_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cfg.json"
    path.write_bytes(content)
    with pytest.raises(CanonError, match=FAULTS[content]) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "cfg.json"
    path.write_text('{"a": [1]}', encoding="utf-8-sig")
    assert read_json(path) == read_value(path) == {"a": [1]}


def test_what_is_not_there_and_what_is_no_file_are_sentences(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name, says in (
        ("pipe.json", "a named pipe"), ("zero.json", "a device"), ("x.json", "cannot be read"),
        (".", "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(CanonError, match=says):
            read_json(tmp_path / name)


@pytest.mark.parametrize("value", ["x", [1], {}, 1.5, True, -3, float("inf"), float("nan")])
def test_a_count_that_is_none_names_key_and_file(value: Any) -> None:
    values, path = {"n": value, "m": 3}, Path("there/config.json")
    if value:
        with pytest.raises(CanonError, match=r"'n' must be a positive .*there/config\.json"):
            whole_number(values, "n", "m", path=path)
    else:
        assert whole_number(values, "n", "m", path=path) == 3


def test_a_count_may_be_missing_or_written_as_a_float() -> None:
    assert whole_number({"n": None, "m": 8.0}, "n", "m", path=Path()) == 8
    assert whole_number({}, "n", path=Path()) is None
