"""A ref survives being written, and a text that is none says why."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saebench_canon.errors import CanonError
from saebench_canon.plugin.ref import Ref, is_bare_path


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("saelens://gpt2/blocks.8", Ref("saelens", "gpt2/blocks.8")),
        ("saelens://gpt2/blocks.8@v1.0", Ref("saelens", "gpt2/blocks.8", "v1.0")),
        ("gemma-scope://google/x/layer_1", Ref("gemma-scope", "google/x/layer_1")),
        ("file:runs/a", Ref("file", "runs/a", local=True)),
        ("file:/runs/a@b", Ref("file", "/runs/a@b", local=True)),
        ("saelens:runs/a", Ref("saelens", "runs/a", local=True)),
    ],
)
def test_a_ref_is_written_as_it_was_read(text: str, ref: Ref) -> None:
    assert Ref.parse(text) == ref
    assert str(ref) == text


def test_a_file_url_is_a_path() -> None:
    assert Ref.parse("file:///runs/a") == Ref.parse("file:/runs/a")


@pytest.mark.parametrize(
    "text", ["runs/a", "", "saelens://", "saelens://a/b@", "saelens://a@b@c", "file:", "saelens: "]
)
def test_a_text_that_is_no_ref_is_refused(text: str) -> None:
    with pytest.raises(CanonError):
        Ref.parse(text)


@pytest.mark.parametrize(
    ("text", "bare"),
    [("runs/a", True), ("./a:b", True), ("C:\\a", True), ("file:a", False), ("saelens://a", False)],
)
def test_a_bare_path_has_no_scheme(text: str, bare: bool) -> None:
    assert is_bare_path(text) is bare


@given(st.text(max_size=30))
def test_any_text_is_a_ref_a_path_or_an_error(text: str) -> None:
    try:
        ref = Ref.parse(text)
    except CanonError:
        return
    assert Ref.parse(str(ref)) == ref
    assert not is_bare_path(text)


def test_a_relative_path_is_taken_from_a_folder() -> None:
    assert Ref.parse("file:a").within(Path("/suite")).path == Path("/suite/a")
    assert Ref.parse("file:/a").within(Path("/suite")).path == Path("/a")
    assert Ref.parse("saelens://a/b").within(Path("/suite")) == Ref("saelens", "a/b")
    with pytest.raises(CanonError, match="on a hub"):
        _ = Ref.parse("saelens://a/b").path


def test_refs_need_no_torch() -> None:
    import subprocess

    code = (
        "import sys, saebench_canon.plugin.ref, saebench_canon.saes.formats.saelens, "
        "saebench_canon.plugin.file_scheme, saebench_canon.trainers.architectures; "
        "sys.exit('torch' in sys.modules or 'sae_lens' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
