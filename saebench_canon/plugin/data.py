"""A data table of a suite, and the kinds of data that it can name.

    @dataclass(frozen=True)
    class Noise(DataSource):
        noise: bool  # the first field is the key that names the kind
        d: int = 16

A kind is a frozen dataclass whose fields are the keys of its tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

from saebench_canon.plugin.adapter import Normalisation
from saebench_canon.plugin.fingerprint import Remembers, file_digest
from saebench_canon.plugin.origin import Origin

if TYPE_CHECKING:
    from saebench_canon.plugin.activations import Acts

Dtype = Literal["float32", "float64", "bfloat16", "float16"]
Gives = Literal["acts", "tokens", "lm", "features"]
SPLIT_SEED = 0
SPARE = 1.25  # a training may keep up to a fifth of its tokens for a threshold
FRESH = 1_000_000  # tokens for a training that does not say how many


@dataclass(frozen=True)
class ModelSize:
    """A language model: d, layers, vocabulary, parameters, and bytes to download."""

    d: int
    layers: int
    vocabulary: int
    parameters: int
    download: int = 0


@dataclass(frozen=True)
class DataSize:
    """How large activations are, as far as is known: the number of tokens, and d.

    For a language model also the model, the share of its layers below the hook, the number of
    tokens for losses, and a text that must be downloaded. `scored`, the number of tokens that
    scores use, is filled in later.
    """

    tokens: int | None
    d: int | None
    model: ModelSize | None = None
    reach: float = 1.0
    loss_tokens: int = 0
    hub_text: str | None = None
    scored: int | None = None


@dataclass(frozen=True)
class DataSource:
    """Where activations come from; its fields are the keys of its kind of table."""

    version: ClassVar[int] = 1  # increased when the same settings give other activations
    gives: ClassVar[frozenset[Gives]] = frozenset({"acts"})
    centres: ClassVar[bool] = False  # whether tables of this kind may set `center`
    names_paths: ClassVar[tuple[str, ...]] = ()  # keys of strings that may be paths
    named: ClassVar[str | None] = None  # the value of its first key that picks it; None: any

    @classmethod
    def kind(cls) -> str:
        """The key of a data table that names the kind."""
        return fields(cls)[0].name

    @classmethod
    def title(cls) -> str:
        """What picks it in a table: its key, and the key's value if kinds share the key."""
        return cls.kind() if cls.named is None else f'{cls.kind()} = "{cls.named}"'

    def check(self, data: DataSpec) -> None:
        """Raises CanonError for mistakes that can be found without torch."""

    def size(self, data: DataSpec) -> DataSize:
        """How large the activations are, without torch."""
        return DataSize(data.tokens, None)

    def identity(self, data: DataSpec, memory: Remembers) -> Mapping[str, Any]:
        """What the activations depend on, as plain data: all settings, and the content of files."""
        settings = {
            key: file_digest(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
        }
        return {"kind": self.kind(), "version": self.version, "settings": settings}

    def acts(self, data: DataSpec) -> Acts:
        """All activations and their documents; they are cut to `tokens` and normalised later."""
        raise NotImplementedError(f"data of the kind '{self.kind()}' gives no activations")

    def caveat(self, data: DataSpec, memory: Remembers) -> str | None:
        """A sentence on what this machine lacks of the data; None if nothing."""
        return None

    def origin(self, data: DataSpec) -> Origin:
        """The model, the hook and the use of BOS behind the activations, as far as known."""
        return Origin()

    def commits(self, data: DataSpec) -> Mapping[str, str]:
        """The cached commit of each hub repository that it reads, by name."""
        return {}

    def describe(self) -> str:
        """What is measured on, for a reader of the tables."""
        return str(self)

    def __str__(self) -> str:
        return self.kind()


DataKind = type[DataSource]


class LanguageModelSource(Protocol):
    """A data source that gives a language model and the text that it reads."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def hook(self) -> str:
        """Where in the model the activations are."""

    @property
    def text(self) -> str:
        """The text's name."""

    @property
    def context(self) -> int:
        """Tokens of a window."""

    @property
    def bos(self) -> bool:
        """Whether windows begin with BOS, if the tokenizer has one."""

    @property
    def skip(self) -> int:
        """Positions at the start of a window, after its BOS, that do not count."""

    @property
    def loss_tokens(self) -> int:
        """The largest number of tokens for losses."""

    def language_model(self, data: DataSpec, device: str) -> Any:
        """The model and its tokenizer."""

    def documents(self, data: DataSpec) -> Iterable[Any]:
        """The text's documents in order."""


@dataclass(frozen=True)
class DataSpec:
    """A data table: its source, and the keys that tables of every kind have."""

    name: str
    where: str
    source: DataSource
    tokens: int | None = None
    holdout: float | None = None
    dtype: Dtype = "float32"
    center: bool | None = None
    normalize: Normalisation | None = None
    limited: bool = False
    fresh: int | None = None  # tokens that are drawn for a training; None: what scores may use
    root: Path = field(default=Path(), compare=False)

    def describe(self) -> str:
        """What scores are measured on: the source, and which of its tokens."""
        tokens = "" if self.tokens is None else f", at most {self.tokens:,} tokens"
        held_out = (
            ""
            if self.holdout is None
            else f"; scores use {100 * self.holdout:g} % of the documents, which no training saw"
        )
        return f"{self.source.describe()}{tokens}{held_out}"

    @property
    def calibrates_on(self) -> str:
        """The input that thresholds are calibrated on: activations that are not scored, if any."""
        return "acts" if self.holdout is None and not self.draws_fresh else "train_acts"

    def gives(self, *kinds: Gives) -> bool:
        """Whether the source gives all of these."""
        return self.source.gives.issuperset(kinds)

    @property
    def draws_fresh(self) -> bool:
        """Whether trainings draw tokens of their own, so that nothing needs to be held out."""
        return self.gives("features") and not self.gives("lm")

    def to_train(self, settings: Mapping[str, Any]) -> DataSpec:
        """What a training with these settings reads: itself, or fresh tokens for one pass."""
        if not self.draws_fresh:
            return self
        tokens = settings.get("tokens", self.tokens or FRESH)
        return replace(self, fresh=math.ceil(SPARE * tokens), tokens=None)

    @property
    def lm_source(self) -> LanguageModelSource:
        """The source, which must give a language model."""
        assert self.gives("lm"), f"{self.where} names no language model"
        return cast("LanguageModelSource", self.source)
