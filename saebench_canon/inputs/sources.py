"""Which text and model a data table names, and what they are: without torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from saebench_canon.fingerprint import file_digest
from saebench_canon.inputs import language_model, text
from saebench_canon.inputs.text import TextSource

if TYPE_CHECKING:
    from saebench_canon.identity import Remembers
    from saebench_canon.specs import DataSpec


def text_source(data: DataSpec) -> TextSource:
    """The text of a data table; relative paths are the suite file's."""
    assert data.text is not None
    return text.text_source(
        data.text,
        folder=data.root,
        split=data.split,
        column=data.column,
        revision=data.revision,
        subset=data.subset,
    )


def text_identity(data: DataSpec, memory: Remembers) -> str:
    """What the text is; the packaged one takes seconds to read, so its digest is remembered."""
    source = text_source(data)
    if source.kind != "packaged":
        return text.text_identity(source)
    from saebench_canon.packaged import python_docs

    listed = file_digest(python_docs.DIGESTS)

    def read() -> str:
        docs = python_docs.read_python_docs()
        lacks = f", without {docs.missing} of {docs.expected} paragraphs" if docs.missing else ""
        return f"{text.text_identity(source)}{lacks}"

    return memory.remember(f"{source} of Python {sys.version} listed in {listed}", read)


def lacking_text(data: DataSpec, memory: Remembers) -> str | None:
    """What the running Python lacks of a packaged text, as a sentence; None when it is whole."""
    if data.text is None or text_source(data).kind != "packaged":
        return None
    _, comma, lacks = text_identity(data, memory).partition(", ")
    if not comma:
        return None
    return f"this Python gives {data.text} {lacks}: other data than a complete one's"


def model_identity(data: DataSpec) -> str:
    """What the model is: the digest of its folder, or its hub name with revision."""
    assert data.model is not None
    return language_model.model_identity(data.model, revision=data.model_revision, folder=data.root)
