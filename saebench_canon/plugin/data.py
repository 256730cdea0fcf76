"""What a data table of a suite says, and what a kind of data gives and tells.

    @dataclass(frozen=True)
    class Noise(DataSource):
        noise: bool  # the first field is the key by which a table picks the kind
        d: int = 16

A kind is a frozen dataclass whose fields are the keys of its tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

from saebench_canon.plugin.adapter import Normalisation
from saebench_canon.plugin.fingerprint import Remembers, file_digest

if TYPE_CHECKING:
    from saebench_canon.plugin.acts import Acts

Dtype = Literal["float32", "float64", "bfloat16", "float16"]
Gives = Literal["acts", "tokens", "lm"]
SPLIT_SEED = 0


@dataclass(frozen=True)
class ModelSize:
    """A language model: width, layers, vocabulary, parameters, and bytes still to download."""

    d: int
    layers: int
    vocabulary: int
    parameters: int
    download: int = 0


@dataclass(frozen=True)
class DataSize:
    """How large activations are, as far as is known: tokens in all, and width.

    Of a model's: the model, how much of it lies below the hook, on how many tokens losses are
    measured, and what text a hub has to send. How many tokens are scored is filled in later.
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
    """Where activations come from; its fields are the keys that only its kind of table has."""

    version: ClassVar[int] = 1  # raised when the same settings come to mean other activations
    gives: ClassVar[frozenset[Gives]] = frozenset({"acts"})
    centres: ClassVar[bool] = False  # whether `center` may be asked of it
    names_paths: ClassVar[tuple[str, ...]] = ()  # keys of strings that may be paths

    @classmethod
    def kind(cls) -> str:
        """The key by which a data table picks it."""
        return fields(cls)[0].name

    def check(self, data: DataSpec) -> None:
        """Raises CanonError for what can be known to be wrong, without torch."""

    def size(self, data: DataSpec) -> DataSize:
        """How large the activations are, without torch."""
        return DataSize(data.tokens, None)

    def identity(self, data: DataSpec, memory: Remembers) -> Mapping[str, Any]:
        """What makes the activations these, as plain data: every setting, of a file its content."""
        settings = {
            key: file_digest(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
        }
        return {"kind": self.kind(), "version": self.version, "settings": settings}

    def acts(self, data: DataSpec) -> Acts:
        """Activations and their documents; what they are cut and brought to, is done to them."""
        raise NotImplementedError(f"data of the kind '{self.kind()}' gives no activations")

    def caveat(self, data: DataSpec, memory: Remembers) -> str | None:
        """What this machine lacks of it, as a sentence."""
        return None

    def commits(self, data: DataSpec) -> Mapping[str, str]:
        """The commit that the hub's cache holds of each repository that it reads, by name."""
        return {}

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
    def loss_tokens(self) -> int:
        """At most so many scored tokens have their losses measured."""

    def language_model(self, data: DataSpec, device: str) -> Any:
        """The model and its tokenizer."""

    def documents(self, data: DataSpec) -> Iterable[Any]:
        """The text's documents in order."""


@dataclass(frozen=True)
class DataSpec:
    """A data table: a source of its kind, and what tables of every kind may say."""

    name: str
    where: str
    source: DataSource
    tokens: int | None = None
    holdout: float | None = None
    dtype: Dtype = "float32"
    center: bool | None = None
    normalize: Normalisation | None = None
    limited: bool = False
    root: Path = field(default=Path(), compare=False)

    @property
    def calibrates_on(self) -> str:
        """The input whose activations set thresholds: those not scored, where some are held out."""
        return "acts" if self.holdout is None else "train_acts"

    def gives(self, *what: Gives) -> bool:
        """Whether the source gives all of these."""
        return self.source.gives.issuperset(what)

    @property
    def lm_source(self) -> LanguageModelSource:
        """The source as one of a language model, where it gives one."""
        assert self.gives("lm"), f"{self.where} names no language model"
        return cast("LanguageModelSource", self.source)
