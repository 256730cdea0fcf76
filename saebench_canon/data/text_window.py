"""A world of text: features are token embeddings, summed over the last tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from saebench_canon.data import language_model, text
from saebench_canon.data.model_on_text import text_identity
from saebench_canon.data.model_size import model_size
from saebench_canon.errors import CanonError
from saebench_canon.plugin.data import DataSize, DataSpec
from saebench_canon.plugin.world import Block, Drawing, Place, World

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from saebench_canon.plugin.fingerprint import Remembers

EVERY = 5  # of so many documents, scores use the first and trainings the others
BLOCK = 2048  # tokens at once


@dataclass(frozen=True)
class TextWindow(World):
    """Real text: x_t = Σ_j decay^j E[token_{t−j}] over the last `window` tokens.

    E are the input embeddings of `model`; the features are those of the tokens that occur in
    `text`, so that rows, frequencies and what fires together are real, and the truth is known.
    Scores use every fifth document, trainings the others; where these end, tokens repeat.
    """

    named: ClassVar[str] = "text-window"
    names_paths: ClassVar[tuple[str, ...]] = ("model", "text")
    without: ClassVar[tuple[str, ...]] = (
        "d", "features", "seed", "l0", "zipf", "spread", "document", "topics"
    )  # fmt: skip

    noise: float = 0.0
    model: str = "packaged:tiny-lm"
    text: str = "packaged:python-docs"
    window: int = 4
    decay: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1 or not 0 < self.decay <= 1:
            raise CanonError(
                "'window' must be at least 1 and 'decay' above 0 to 1, "
                f"got {self.window} and {self.decay}"
            )

    def size(self, data: DataSpec) -> DataSize:
        """The model's d."""
        known = model_size(self.model, None, data.root)
        return replace(super().size(data), d=None if known is None else known.d)

    def identity(self, data: DataSpec, memory: Remembers) -> Mapping[str, Any]:
        """Model and text by their content, and all settings."""
        settings = dict(super().identity(data, memory)["settings"])
        settings["model"] = language_model.model_identity(self.model, folder=data.root)
        settings["text"] = text_identity(_source(self, data), memory)
        return {"kind": self.kind(), "version": self.version, "settings": settings}

    def opened(self, data: DataSpec) -> Drawing:
        """The text in tokens, and the model's embeddings."""
        return _Text(self, data)


def _source(world: TextWindow, data: DataSpec) -> text.TextSource:
    return text.text_source(
        world.text, folder=data.root, split="train", column="text", revision=None, subset=None
    )


@dataclass(frozen=True)
class _Text:
    """A text window with its model loaded."""

    world: TextWindow
    data: DataSpec

    @cached_property
    def _model(self) -> language_model.LanguageModel:
        return language_model.load_language_model(self.world.model, folder=self.data.root)

    @cached_property
    def _documents(self) -> list[list[int]]:
        documents = text.iter_documents(_source(self.world, self.data))
        encode = self._model.tokenizer
        return [
            encode(document.text, add_special_tokens=False, verbose=False)["input_ids"]
            for document in documents
        ]

    @cached_property
    def _tokens(self) -> Tensor:
        """The vocabulary's tokens that occur, the most frequent first, [F]."""
        import torch

        counts = Counter(token for document in self._documents for token in document)
        return torch.tensor([token for token, _ in sorted(counts.items(), key=_rank)])

    @cached_property
    def _embeddings(self) -> Tensor:
        """Their embeddings, [F, d] float32."""
        table = self._model.model.get_input_embeddings().weight
        embeddings: Tensor = table.detach().float()[self._tokens]
        return embeddings

    def rows(self) -> Tensor:
        """The embeddings at unit norm."""
        from saebench_canon.kernels.cosine import unit

        return unit(self._embeddings).float()

    def parents(self) -> Tensor:
        """None."""
        import torch

        return torch.full((len(self._tokens),), -1)

    def names(self) -> Sequence[str]:
        """The tokens as text, and their numbers."""
        decode = self._model.tokenizer.decode
        return [f"{decode([token])!r} ({token})" for token in self._tokens.tolist()]

    def available(self, purpose: str) -> int:
        """How many tokens the documents have that are read for this."""
        return sum(len(ids) for _, ids in self._read(purpose))

    def blocks(self, tokens: int, purpose: str) -> Iterator[Block]:
        """The text in order, some tokens of one document at a time."""
        import torch

        from saebench_canon.kernels.codes import Codes

        number = torch.full((int(self._tokens.max()) + 1,), -1)
        number[self._tokens] = torch.arange(len(self._tokens))
        left = tokens
        for doc, ids in self._read(purpose):
            for start in range(0, min(len(ids), left), BLOCK):
                count = min(BLOCK, left - start, len(ids) - start)
                before = max(0, start - self.world.window + 1)
                features = number[torch.tensor(ids[before : start + count])]
                codes = self._codes(features)[start - before :]
                chance = self.world.generator(purpose, doc, start)
                place = Place(torch.full((count,), doc), torch.arange(start, start + count))
                yield Block(self._x(codes, chance), Codes.from_dense(codes), place)
            left -= min(len(ids), left)
            if left == 0:
                return

    def _codes(self, features: Tensor) -> Tensor:
        """Codes [n, F] of a run of tokens, each by the feature that it is."""
        import torch

        sizes = self._embeddings.norm(dim=1)
        codes = torch.zeros(len(features), len(sizes))
        index = torch.arange(len(features))
        for back in range(min(self.world.window, len(features))):
            earlier = features[: len(features) - back]
            weight = self.world.decay**back * sizes[earlier]
            codes.index_put_((index[back:], earlier), weight, accumulate=True)
        return codes

    def _x(self, codes: Tensor, chance: Generator) -> Tensor:
        import torch

        rows = self.rows()
        x = codes @ rows
        if not self.world.noise:
            return x
        return x + self.world.noise * torch.randn(x.shape, generator=chance)

    def _read(self, purpose: str) -> Iterator[tuple[int, list[int]]]:
        """The documents that are read for a purpose."""
        for doc, ids in enumerate(self._documents):
            if ids and (doc % EVERY == 0) == (purpose == "scored"):
                yield doc, ids


def _rank(counted: tuple[int, int]) -> tuple[int, int]:
    token, count = counted
    return -count, token
