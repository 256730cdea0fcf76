"""Documents of text: from a local file, a hub data set, or the package itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saebench_canon.errors import (
    CanonError,
    NotOffline,
    expanded,
    message_of,
    nearest,
    nearest_file,
)
from saebench_canon.saes import hub_offline as hub
from saebench_canon.saes.weights.regular_file import refuse_special

if TYPE_CHECKING:
    from saebench_canon.packaged.python_docs import PythonDocs

SUFFIXES = (".txt", ".jsonl", ".parquet")
PACKAGED = ("python-docs",)
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
END_OF_TEXT = re.compile(r"^[ \t]*<\|endoftext\|>[ \t]*$", re.MULTILINE)
BLANK_LINES = re.compile(r"\n(?:[ \t\r]*\n)+")


@dataclass(frozen=True)
class TextSource:
    """Where text comes from: `kind` says how `name` is read.

    `column` is for .jsonl, .parquet and hub data sets; `split`, `revision` and `subset` (what the
    hub calls a configuration) are for hub data sets only.
    """

    kind: Literal["file", "hub", "packaged"]
    name: str  # a path, a hub id, or the name after "packaged:"
    split: str = "train"
    column: str = "text"
    revision: str | None = None
    subset: str | None = None

    def __str__(self) -> str:
        return f"packaged:{self.name}" if self.kind == "packaged" else self.name


@dataclass(frozen=True)
class Document:
    """One document: a name for error messages, and its text."""

    name: str
    text: str


def text_source(
    text: str,
    *,
    folder: Path | None = None,
    split: str = "train",
    column: str = "text",
    revision: str | None = None,
    subset: str | None = None,
) -> TextSource:
    """What a suite's `text` names; a relative path is relative to the folder.

    A file is a name with a known suffix, with a leading `.`, `/` or `~`, or of something that
    exists; `packaged:…` is a text of the package; anything else is a hub data set.
    """
    if text.startswith("packaged:"):
        name = text.removeprefix("packaged:")
        if name not in PACKAGED:
            raise CanonError(f"no packaged text {name!r}", hint=nearest(name, PACKAGED))
        return TextSource("packaged", name)
    path = (folder or Path()) / expanded(text)
    if text.startswith((".", "/", "~")) or path.suffix in SUFFIXES or path.exists():
        return TextSource("file", str(path), column=column)
    if not HUB_NAME.fullmatch(text):
        raise CanonError(
            f"the text {text!r} is neither a file nor the name of a hub data set",
            hint=f"Give a {', '.join(SUFFIXES)} file, OWNER/NAME, or packaged:{PACKAGED[0]}.",
        )
    return TextSource("hub", text, split, column, revision, subset)


def iter_documents(source: TextSource) -> Iterator[Document]:
    """The documents of a source in order, read lazily; documents of white space are left out.

    A .txt file is split at form feeds; if it has none, at lines that read `<|endoftext|>`; if it
    has none of these either, at blank lines. A .jsonl or .parquet file and a hub data set (which
    is streamed) have one document in each row.

    Raises:
        CanonError: the source is missing, unreadable, or holds no text at all.
        NotOffline: the text is a hub data set, and the hub cannot be reached.
    """
    empty = True
    for document in _raw_documents(source):
        if document.text.strip():
            empty = False
            yield document
    if empty:
        raise CanonError("the text is empty", where=str(source))


def text_identity(source: TextSource) -> str:
    """What the text is: a digest of its content; for a hub data set its full name.

    A hub data set without a revision is what its main branch holds on the day: set `revision` to
    pin it.
    """
    if source.kind == "hub":
        parts = (source.name, source.subset, source.split, source.column, source.revision)
        return "hub:" + json.dumps(parts)
    if source.kind == "packaged":
        return f"packaged:{source.name}:{_python_docs().digest}"
    path = _local_file(source)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(path.suffix.encode())
    digest.update(b"\0" if path.suffix == ".txt" else f"\0{source.column}\0".encode())
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"text:{digest.hexdigest()}"


def split_documents(text: str) -> list[str]:
    """The documents of a .txt file's text, split at the first kind of separator that it has."""
    if "\f" in text:
        return text.split("\f")
    if END_OF_TEXT.search(text):
        return END_OF_TEXT.split(text)
    return BLANK_LINES.split(text)


def _raw_documents(source: TextSource) -> Iterator[Document]:
    if source.kind == "packaged":
        return (Document(name, text) for name, text in _python_docs().documents)
    if source.kind == "hub":
        return _from_hub(source)
    path = _local_file(source)
    readers = {".txt": _from_txt, ".jsonl": _from_jsonl, ".parquet": _from_parquet}
    return readers[path.suffix](path, source.column)


@cache
def _python_docs() -> PythonDocs:
    """The packaged text, read once: that takes seconds, and both text and identity need it."""
    from saebench_canon.packaged.python_docs import read_python_docs

    return read_python_docs()


def _local_file(source: TextSource) -> Path:
    """The path of a local source; raises CanonError unless it exists and has a known suffix."""
    path = Path(source.name)
    refuse_special(path)
    if path.is_dir():
        raise CanonError("the text is a folder, not a file", where=source.name)
    if not path.exists():
        raise CanonError("the text file does not exist", where=source.name, hint=nearest_file(path))
    if path.suffix not in SUFFIXES:
        raise CanonError(
            f"text is read from {', '.join(SUFFIXES)} files, not from {path.suffix or path.name!r}",
            where=source.name,
        )
    return path


def _utf8(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CanonError(
            f"the text is not UTF-8 (byte {error.start})", where=where, hint="Convert it to UTF-8."
        ) from None


def _from_txt(path: Path, column: str) -> Iterator[Document]:
    text = _utf8(path.read_bytes(), str(path)).replace("\r\n", "\n")
    for number, part in enumerate(split_documents(text), start=1):
        yield Document(f"{path.name} document {number}", part.strip("\n"))


def _from_jsonl(path: Path, column: str) -> Iterator[Document]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            where = f"{path} line {number}"
            line = _utf8(raw, where)
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise CanonError(f"the line is not JSON ({error})", where=where) from None
            if not isinstance(row, dict):
                raise CanonError("the line is not a JSON object", where=where)
            yield Document(f"{path.name} line {number}", _cell(row, column, where))


def _from_parquet(path: Path, column: str) -> Iterator[Document]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise CanonError(f"the file is not Parquet ({error})", where=str(path)) from None
    with table:
        names = table.schema_arrow.names
        if column not in names:
            raise _no_column(column, names, str(path))
        rows = (
            value
            for batch in table.iter_batches(batch_size=1024, columns=[column])
            for value in batch.column(0).to_pylist()
        )
        for number, value in enumerate(rows, start=1):
            where = f"{path} row {number}"
            yield Document(f"{path.name} row {number}", _cell({column: value}, column, where))


def _from_hub(source: TextSource) -> Iterator[Document]:
    rows = _hub_rows(source)
    number = 0
    while True:
        number += 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except OSError as error:
            raise NotOffline(
                f"reading from the hub failed ({message_of(error)})", where=str(source)
            ) from None
        where = f"{source} row {number}"
        yield Document(where, _cell(row, source.column, where))


def _hub_rows(source: TextSource) -> Iterator[dict[str, Any]]:
    """The rows of a hub data set: streamed, or from the local cache in offline mode."""
    where = str(source)
    cached = hub.offline_mode()
    if not cached and hub.out_of_reach():
        raise NotOffline("the text is on the hub, which cannot be reached", where=where, hint=_SAVE)
    try:
        import datasets
    except ImportError:
        raise CanonError(
            "the package `datasets`, which reads text from the hub, is not installed",
            where=where,
            hint="Run `pip install datasets`.",
        ) from None
    try:
        rows = datasets.load_dataset(
            source.name,
            source.subset,
            split=source.split,
            revision=source.revision,
            streaming=not cached,
        )
    except datasets.exceptions.DatasetNotFoundError as error:
        raise CanonError(
            f"the hub has no such data set ({message_of(error)})", where=where
        ) from None
    except OSError as error:
        raise NotOffline(
            f"the text is not in the cache, and the hub cannot be reached ({message_of(error)})",
            where=where,
            hint=_SAVE,
        ) from None
    except (ValueError, RuntimeError) as error:  # unknown split or configuration, script data sets
        raise CanonError(f"the data set does not open ({message_of(error)})", where=where) from None
    return iter(rows)


_SAVE = "Save it as a .jsonl or .parquet file where there is a network and name that file."


def _cell(row: dict[str, Any], column: str, where: str) -> str:
    """The text of a row; null counts as empty."""
    if column not in row:
        raise _no_column(column, row, where)
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CanonError(
            f"column {column!r} holds {type(value).__name__}, not text",
            where=where,
            hint="Set `column` to a column of text.",
        )
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise CanonError(
            "the text has half of a surrogate pair, which is no character",
            where=where,
            hint="Remove it, or write it as \\ufffd.",
        )
    return value


def _no_column(column: str, names: Iterable[str], where: str) -> CanonError:
    listed = ", ".join(map(repr, names)) or "none"
    return CanonError(
        f"no column {column!r}",
        where=where,
        hint=f"Set `column`; the columns are {listed}.",
    )
