"""Which text and model a data table names, and what they are: without torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.data import language_model, text
from saebench_canon.data.hooks import KNOWN
from saebench_canon.data.text import TextSource
from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.fingerprint import file_digest

if TYPE_CHECKING:
    from saebench_canon.plugin.data import DataSpec
    from saebench_canon.plugin.fingerprint import Remembers


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


def check_source(data: DataSpec) -> None:
    """Refuse what can be known to be wrong before the model is loaded or the text is read.

    Raises:
        CanonError: a missing model folder, a TransformerLens name or layer that there is not, a
            context longer than the model's, a missing or empty local text.
    """
    if data.model is None or data.hook is None:
        return
    source = text_source(data)
    if source.kind == "file":
        path = Path(source.name)
        if not path.is_file():
            beside = [each.name for each in path.parent.glob("*")]
            raise CanonError(f"there is no text file {path}", hint=nearest(path.name, beside))
        if path.stat().st_size == 0:
            raise CanonError(f"the text {path} is empty")
    folder = language_model.model_folder(data.model, folder=data.root)
    config = _config(folder / language_model.CONFIG) if folder is not None else {}
    _check_hook(data.hook, config.get("num_hidden_layers") or config.get("n_layer"))
    longest = config.get("max_position_embeddings") or config.get("n_positions")
    if longest is not None and data.context > longest:
        raise CanonError(f"'context' is {data.context}, and the model has {longest} positions")


def _config(path: Path) -> dict[str, Any]:
    """A model's configuration, of a model of text and images the part on text."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # what is wrong with it is said when it is loaded
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _check_hook(hook: str, layers: int | None) -> None:
    """Refuse a TransformerLens name that is none; module paths only the model can tell."""
    head, _, rest = hook.partition(".")
    if head != "blocks":
        return
    layer, _, name = rest.partition(".")
    if name not in KNOWN:
        raise CanonError(f"there is no hook '{hook}'", hint=nearest(name, KNOWN))
    if not layer.isdigit() or (layers is not None and int(layer) >= layers):
        there = "" if layers is None else f"; it has {layers}, from 0"
        raise CanonError(f"'{hook}': the model has no layer {layer}{there}")
