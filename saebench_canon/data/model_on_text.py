"""What does a model reading a text give? The kind of data that the key `model` picks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from saebench_canon.data import language_model, text
from saebench_canon.data.hook_points import KNOWN
from saebench_canon.data.language_model import LanguageModel
from saebench_canon.data.model_config import model_config
from saebench_canon.data.model_size import model_size, reach, tokens_of
from saebench_canon.data.text import Document, TextSource
from saebench_canon.errors import CanonError, nearest, nearest_file
from saebench_canon.plugin.data import DataSize, DataSource, DataSpec, Gives
from saebench_canon.plugin.fingerprint import Remembers, file_digest
from saebench_canon.plugin.origin import Origin
from saebench_canon.saes.hub_download import cached_commit
from saebench_canon.saes.weights.regular_file import refuse_special


@dataclass(frozen=True)
class ModelOnText(DataSource):
    """Activations at a hook of a language model that reads a text."""

    gives: ClassVar[frozenset[Gives]] = frozenset({"acts", "tokens", "lm"})
    centres: ClassVar[bool] = True
    names_paths: ClassVar[tuple[str, ...]] = ("model", "text")

    model: str
    hook: str
    text: str
    split: str = "train"
    column: str = "text"
    subset: str | None = None
    revision: str | None = None
    model_revision: str | None = None
    context: int = 128
    bos: bool = True
    skip: int = 0
    loss_tokens: int = 32_768
    weights: Literal["pretrained", "random"] = "pretrained"
    weights_seed: int = 0

    def __post_init__(self) -> None:
        for key in ("context", "loss_tokens"):
            if getattr(self, key) < 2:
                raise CanonError(f"'{key}' must be at least 2, got {getattr(self, key)}")
        if self.weights not in ("pretrained", "random"):
            raise CanonError(f"'weights' must be pretrained or random, got {self.weights!r}")
        if self.weights_seed < 0 or (self.weights_seed and not self.random):
            needed = "at least 0" if self.random else 'left out, or weights must be "random"'
            raise CanonError(f"'weights_seed' must be {needed}, got {self.weights_seed}")
        if self.skip < 0:
            raise CanonError(f"'skip' must be at least 0, got {self.skip}")

    @property
    def random(self) -> bool:
        """Whether the model's weights are drawn anew, as a control."""
        return self.weights == "random"

    def text_source(self, root: Path) -> TextSource:
        """The text; relative paths are the suite file's."""
        return text.text_source(
            self.text,
            folder=root,
            split=self.split,
            column=self.column,
            revision=self.revision,
            subset=self.subset,
        )

    def check(self, data: DataSpec) -> None:
        """Check what can be checked before the model is loaded or the text is read.

        Raises:
            CanonError: a missing model folder, an unknown TransformerLens name or layer,
                a context longer than the model's, a missing or empty local text.
        """
        source = self.text_source(data.root)
        if source.kind == "file":
            _check_file(Path(source.name))
        folder = language_model.model_folder(self.model, folder=data.root)
        config = None if folder is None else model_config(folder)
        _check_hook(self.hook, None if config is None else config.layers)
        longest = None if config is None else config.positions
        if longest is not None and self.context > longest:
            raise CanonError(
                f"'context' must be at most the model's {longest} positions, got {self.context}"
            )

    def size(self, data: DataSpec) -> DataSize:
        """The size, from the model's configuration and the text's length."""
        source = self.text_source(data.root)
        model = model_size(self.model, self.model_revision, data.root)
        return DataSize(
            tokens_of(source, data.tokens),
            None if model is None else model.d,
            model,
            1.0 if model is None else reach(self.hook, model.layers),
            self.loss_tokens,
            self.text if source.kind == "hub" else None,
        )

    def identity(self, data: DataSpec, memory: Remembers) -> Mapping[str, Any]:
        """Model and text, and how the model reads the text."""
        model = language_model.model_identity(
            self.model, revision=self.model_revision, folder=data.root
        )
        return {
            "model": model,
            "text": text_identity(self.text_source(data.root), memory),
            "hook": self.hook,
            "context": self.context,
            "center": bool(data.center),
            "dtype": data.dtype,
            **({} if self.bos else {"bos": False}),
            **({"skip": self.skip} if self.skip else {}),
            **({"weights": "random", "weights_seed": self.weights_seed} if self.random else {}),
        }

    def origin(self, data: DataSpec) -> Origin:
        """Model and hook of the table; a folder is the model that its configuration names."""
        folder = language_model.model_folder(self.model, folder=data.root)
        name: str | None = self.model
        if folder is not None and not self.model.startswith("packaged:"):
            resolved = str(folder.resolve())
            config = model_config(folder)
            saved_from = None if config is None else config.name
            name = resolved if "models--" in resolved else saved_from
        if self.random:
            name = f"{name or self.model} with random weights"
        return Origin(name or None, self.hook)

    def language_model(self, data: DataSpec, device: str) -> LanguageModel:
        """The model in eval mode, and its tokenizer."""
        model = language_model.load_language_model(
            self.model,
            revision=self.model_revision,
            folder=data.root,
            dtype=data.dtype,
            device=device,
        )
        return (
            language_model.with_random_weights(model, self.weights_seed) if self.random else model
        )

    def documents(self, data: DataSpec) -> Iterator[Document]:
        """The text's documents in order."""
        return text.iter_documents(self.text_source(data.root))

    def caveat(self, data: DataSpec, memory: Remembers) -> str | None:
        """What the running Python lacks of a packaged text; None when it is complete."""
        source = self.text_source(data.root)
        if source.kind != "packaged":
            return None
        _, comma, lacks = text_identity(source, memory).partition(", ")
        if not comma:
            return None
        return f"this Python gives {source} {lacks}: other data than a complete Python's"

    def commits(self, data: DataSpec) -> Mapping[str, str]:
        """The commit of a hub model."""
        if language_model.model_folder(self.model, folder=data.root) is not None:
            return {}
        commit = cached_commit(self.model, self.model_revision)
        return {} if commit is None else {self.model: commit}

    def describe(self) -> str:
        """The model, the hook and the text."""
        drawn = f" with random weights (seed {self.weights_seed})" if self.random else ""
        return f"{self.model}{drawn} at {self.hook}, reading {self.text}"

    def __str__(self) -> str:
        return self.model


def text_identity(source: TextSource, memory: Remembers) -> str:
    """What the text is. The packaged text takes seconds to read, so its digest is remembered."""
    if source.kind != "packaged":
        return text.text_identity(source)
    from saebench_canon.packaged import python_docs

    listed = file_digest(python_docs.DIGESTS)

    def read() -> str:
        docs = python_docs.read_python_docs()
        lacks = f", without {docs.missing} of {docs.expected} paragraphs" if docs.missing else ""
        return f"{text.text_identity(source)}{lacks}"

    return memory.remember(f"{source} of Python {sys.version} listed in {listed}", read)


def _check_file(path: Path) -> None:
    refuse_special(path)
    if not path.is_file():
        raise CanonError(f"the text file {path} does not exist", hint=nearest_file(path))
    if path.stat().st_size == 0:
        raise CanonError(f"the text {path} is empty")


def _check_hook(hook: str, layers: int | None) -> None:
    """Refuse an unknown TransformerLens name; only the loaded model can check a module path."""
    head, _, rest = hook.partition(".")
    if head != "blocks":
        return
    layer, _, name = rest.partition(".")
    if name not in KNOWN:
        raise CanonError(f"unknown hook '{hook}'", hint=nearest(name, KNOWN))
    if not layer.isdigit() or (layers is not None and int(layer) >= layers):
        layers_known = "" if layers is None else f"; the layers are 0 to {layers - 1}"
        raise CanonError(f"the hook '{hook}' is on no layer of the model{layers_known}")
