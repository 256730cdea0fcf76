"""The packaged prose is the same on every Python, in order, and says what it lacks."""

from dataclasses import replace
from pathlib import Path

import pytest

from saebench_canon.packaged.python_docs import (
    DIGESTS,
    PythonDocs,
    collect,
    paragraph_digest,
    paragraphs,
    read_list,
    read_python_docs,
    source_of,
    write_list,
)

COMPLETE = "0a2d552b1cf2f91f755a1bdca2801171"

Listed = dict[str, tuple[bytes, ...]]


@pytest.fixture(scope="module")
def listed() -> Listed:
    """The list as packaged."""
    return read_list(DIGESTS.read_text("ascii"))


@pytest.fixture(scope="module")
def docs() -> PythonDocs:
    """The prose as this Python has it."""
    return read_python_docs()


def test_the_digest_tells_a_complete_python(docs: PythonDocs) -> None:
    assert (docs.missing == 0) == (docs.digest == COMPLETE)


def test_nearly_all_of_it_stands_in_any_supported_python(docs: PythonDocs) -> None:
    assert docs.expected > 10_000
    assert docs.missing < 0.1 * docs.expected


def test_documents_follow_the_list(docs: PythonDocs, listed: Listed) -> None:
    present = {module for module, _ in docs.documents}
    assert [module for module, _ in docs.documents] == [m for m in listed if m in present]


def test_every_paragraph_is_listed_under_its_module_and_none_comes_twice(
    docs: PythonDocs, listed: Listed
) -> None:
    seen: set[bytes] = set()
    for module, text in docs.documents:
        digests = [paragraph_digest(paragraph) for paragraph in text.split("\n\n")]
        assert digests == [digest for digest in listed[module] if digest in set(digests)]
        assert seen.isdisjoint(digests)
        seen.update(digests)
    assert len(seen) == docs.expected - docs.missing


def test_a_python_with_fewer_modules_misses_paragraphs_and_has_another_digest(
    docs: PythonDocs, listed: Listed
) -> None:
    fewer = collect(listed, lambda module: None if module == "argparse" else source_of(module))
    assert fewer.missing == docs.missing + len(listed["argparse"])
    assert fewer.expected == docs.expected
    assert fewer.digest != docs.digest
    assert fewer.documents == tuple(d for d in docs.documents if d[0] != "argparse")


def test_the_list_survives_writing_and_reading(listed: Listed) -> None:
    assert read_list(write_list(listed)) == listed


def test_prose_is_taken_from_docstrings_and_comments_without_wrapping() -> None:
    source = '''
# A comment that runs over two lines
# is one paragraph of prose.
#
# ----------------------------------
x = 1  # a comment behind code is left out of the text

class Thing:
    """Do the thing that the name of the class says.

    >>> an.example(is_not) == "a paragraph of prose"

    Indented text is joined
        into one line.
    """
    if x:
        async def run(self):
            "Wait until everything that was started has ended."
'''
    assert [*paragraphs(source)] == [
        "Do the thing that the name of the class says.",
        "Indented text is joined into one line.",
        "Wait until everything that was started has ended.",
        "A comment that runs over two lines is one paragraph of prose.",
    ]


def test_a_source_that_does_not_parse_has_no_paragraphs() -> None:
    assert [*paragraphs("# A comment of a file that is not Python.\nprint 'hello'")] == []


@pytest.mark.parametrize("module", ["no_such_module", "email.no_such_module", "sys", "os.path"])
def test_a_module_without_source_is_skipped(module: str) -> None:
    assert source_of(module) is None


def test_a_python_that_lacks_paragraphs_is_told_so_and_has_another_identity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from saebench_canon.bench.store import Store
    from saebench_canon.data.model_on_text import ModelOnText
    from saebench_canon.packaged import python_docs
    from saebench_canon.plugin.data import DataSpec

    source = ModelOnText("packaged:tiny-lm", "h", "packaged:python-docs")
    data = DataSpec("docs", "here", source)
    whole = python_docs.read_python_docs()
    complete = source.identity(data, Store(tmp_path))["text"]
    assert (source.caveat(data, Store(tmp_path)) is None) == (whole.missing == 0)
    fewer = replace(whole, documents=whole.documents[1:], missing=whole.missing + 7, digest="other")
    monkeypatch.setattr(python_docs, "read_python_docs", lambda: fewer)
    assert source.identity(data, Store(tmp_path / "new"))["text"] != complete
    told = source.caveat(data, Store(tmp_path / "new"))
    assert told is not None
    assert f"without {fewer.missing} of {fewer.expected} paragraphs" in told
