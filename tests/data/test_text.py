"""Text from files, the hub and the package arrives as documents, or an error says why not."""

from __future__ import annotations

import json
import subprocess
import sys

import pyarrow
import pytest
from pyarrow import parquet

from saebench_canon.data.text import (
    Document,
    TextSource,
    iter_documents,
    split_documents,
    text_identity,
    text_source,
)
from saebench_canon.errors import CanonError, NotOffline
from saebench_canon.saes import hub_offline as hub


def read(source: TextSource) -> list[Document]:
    return list(iter_documents(source))


def texts(source: TextSource) -> list[str]:
    return [document.text for document in read(source)]


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "stories.jsonl"
    rows = [{"text": "one", "note": "a"}, {"text": " \n"}, {"text": None}, {"text": "two\n\n2"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("one\ntwo", ["one\ntwo"]),
        ("one\n\ntwo\n \n\nthree", ["one", "two", "three"]),
        ("one\n\n1\n<|endoftext|>\ntwo", ["one\n\n1\n", "\ntwo"]),
        ("one\n\n<|endoftext|>\n1\ftwo", ["one\n\n<|endoftext|>\n1", "two"]),
    ],
)
def test_a_text_file_is_split_by_the_first_separator_it_has(text, parts):
    assert split_documents(text) == parts


def test_a_text_file_gives_its_documents_without_the_empty_ones(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n\r\ntwo\nlines\n\n\n")
    found = read(text_source("a.txt", folder=tmp_path))
    assert [each.text for each in found] == ["one", "two\nlines"]
    assert found[1].name == "a.txt document 2"


def test_a_jsonl_file_gives_one_document_a_line(jsonl):
    found = read(text_source(str(jsonl)))
    assert [(each.name, each.text) for each in found] == [
        ("stories.jsonl line 1", "one"),
        ("stories.jsonl line 4", "two\n\n2"),
    ]


def test_a_parquet_file_gives_one_document_a_row(tmp_path):
    table = pyarrow.table({"id": [1, 2, 3], "story": ["one", None, "three"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    source = text_source("a.parquet", folder=tmp_path, column="story")
    assert texts(source) == ["one", "three"]
    with pytest.raises(CanonError, match=r"no column 'text' .*the columns are 'id', 'story'"):
        read(text_source("a.parquet", folder=tmp_path))
    with pytest.raises(CanonError, match=r"column 'id' holds int, not text \(.*row 1\)"):
        read(text_source("a.parquet", folder=tmp_path, column="id"))


@pytest.mark.parametrize("line", ["this is not JSON", "[" * 100_000], ids=["words", "deep"])
def test_documents_are_read_only_as_far_as_they_are_asked_for(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "one"}}\n{line}\n')
    documents = iter_documents(text_source(str(path)))
    assert next(documents).text == "one"
    with pytest.raises(CanonError, match=r"the line is not JSON .*a\.jsonl line 2\)"):
        next(documents)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", b"caf\xe9", "the text is not UTF-8 (byte 3) ("),
        ("a.txt", b" \n\n", "the text is empty ("),
        ("a.jsonl", b'{"story": ""}', "line 1). Set `column`; the columns are 'story'"),
        ("a.jsonl", b'["x"]\n', "the line is not a JSON object ("),
        ("a.jsonl", b'{"text": ["x"]}\n', "column 'text' holds list, not text"),
        (
            "a.jsonl",
            b'{"text": "a \\ud83d"}\n',
            "half of a surrogate pair, which is no character (",
        ),
        ("a.parquet", b"PAR0", "the file is not Parquet ("),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CanonError) as caught:
        read(text_source(name, folder=tmp_path))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_nearest(jsonl):
    message = r"the text file does not exist \(.*\)\. Did you mean 'stories.jsonl'"
    with pytest.raises(CanonError, match=message):
        read(text_source("storys.jsonl", folder=jsonl.parent))
    (jsonl.parent / "a.csv").write_text("x")
    with pytest.raises(CanonError, match=r"not from '\.csv'"):
        read(text_source("a.csv", folder=jsonl.parent))
    with pytest.raises(CanonError, match="the text is a folder"):
        read(text_source(".", folder=jsonl.parent))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Skylion007/openwebtext", "hub"),
        ("wikitext", "hub"),
        ("packaged:python-docs", "packaged"),
        ("a/b.txt", "file"),
        ("./openwebtext", "file"),
        ("~/openwebtext", "file"),
    ],
)
def test_a_name_says_what_kind_of_source_it_is(tmp_path, text, kind):
    assert text_source(text, folder=tmp_path).kind == kind


def test_a_name_of_no_kind_is_refused():
    with pytest.raises(CanonError, match="neither a file nor the name of a hub data set"):
        text_source("my stories")
    with pytest.raises(CanonError, match="Did you mean 'python-docs'"):
        text_source("packaged:python-doc")


def test_the_identity_follows_the_content_and_not_the_place(tmp_path, jsonl):
    copy = tmp_path / "elsewhere.jsonl"
    copy.write_bytes(jsonl.read_bytes())
    source = text_source(str(jsonl))
    assert text_identity(source) == text_identity(text_source(str(copy)))
    assert text_identity(source) != text_identity(text_source(str(jsonl), column="note"))
    copy.write_bytes(jsonl.read_bytes() + b"\n")
    assert text_identity(source) != text_identity(text_source(str(copy)))


def test_the_identity_of_a_hub_set_is_its_full_name():
    sources = [
        text_source("a/b"),
        text_source("a/b", revision="1"),
        text_source("a/b", split="test"),
        text_source("a/b", subset="en"),
        text_source("a/b", column="content"),
    ]
    assert len({text_identity(source) for source in sources}) == 5
    assert text_identity(sources[0]) == 'hub:["a/b", null, "train", "text", null]'


def test_the_packaged_text_has_documents_and_a_digest():
    source = text_source("packaged:python-docs")
    try:
        found = read(source)
    except FileNotFoundError:
        pytest.skip("the list of packaged paragraphs is not built")
    assert len(found) > 10
    assert text_identity(source).startswith("packaged:python-docs:")


def test_a_hub_that_cannot_be_reached_is_said_at_once(monkeypatch):
    monkeypatch.setattr(hub, "offline_mode", lambda: False)
    monkeypatch.setattr(hub, "out_of_reach", lambda: True)
    with pytest.raises(NotOffline, match=r"the text is on the hub, .* \(a/b\)\. Save it as"):
        next(iter_documents(text_source("a/b")))


def test_a_hub_set_is_streamed(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name, subset, **options):
        asked.append((name, subset, options))
        return ({"text": f"story {number}"} for number in range(10**9))

    monkeypatch.setattr(hub, "offline_mode", lambda: False)
    monkeypatch.setattr(hub, "out_of_reach", lambda: False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    documents = iter_documents(text_source("a/b", split="test", revision="v1"))
    assert [next(documents).text for _ in range(2)] == ["story 0", "story 1"]
    options = {"split": "test", "revision": "v1", "streaming": True}
    assert asked == [("a/b", None, options)]


def test_a_hub_set_that_does_not_open_is_a_sentence(monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(hub, "offline_mode", lambda: False)
    monkeypatch.setattr(hub, "out_of_reach", lambda: False)
    for error, kind in (
        (ConnectionError("Couldn't reach it\nat all"), NotOffline),
        (ValueError("Unknown split 'x'"), CanonError),
        (datasets.exceptions.DatasetNotFoundError("no 'a/b'"), CanonError),
    ):

        def load_dataset(*_, error=error, **__):
            raise error

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(kind) as caught:
            next(iter_documents(text_source("a/b")))
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)


def test_reading_text_needs_no_torch():
    code = (
        "import sys, saebench_canon.data.text, saebench_canon.data.hook_points,"
        " saebench_canon.data.language_model; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
