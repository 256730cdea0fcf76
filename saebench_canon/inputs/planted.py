"""A world in a language model: known directions, added to its activations on tokens of a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from saebench_canon.data.language_model import model_identity
from saebench_canon.data.model_on_text import ModelOnText, text_identity
from saebench_canon.data.text_window import EVERY
from saebench_canon.errors import CanonError
from saebench_canon.plugin.data import DataSize, DataSpec
from saebench_canon.plugin.world import Block, Drawing, Place, World

if TYPE_CHECKING:
    from torch import Tensor

    from saebench_canon.data.hook_points import HookPoint
    from saebench_canon.data.language_model import LanguageModel
    from saebench_canon.inputs.tokens import Tokens
    from saebench_canon.plugin.fingerprint import Remembers

WINDOWS = 32  # windows of text at once
OFTEN = 4  # the lot draws from so many times the tokens that are needed, the most frequent ones
USUAL = 64  # windows whose median norm is the usual one


@dataclass(frozen=True)
class Planted(World):
    """A language model's own activations, and known directions that are added to them.

    Feature i is added wherever the token is one of `words` frequent ones that a lot gives to it
    alone, with `strength` times the usual norm of the activations. Only these features are known:
    what a score says of the model's own features is neither right nor wrong. Scores use every fifth
    document, trainings the others; where these end, tokens repeat.
    """

    named: ClassVar[str] = "planted"
    holds_others: ClassVar[bool] = True
    names_paths: ClassVar[tuple[str, ...]] = ("model", "text")
    without: ClassVar[tuple[str, ...]] = (
        "d", "l0", "zipf", "spread", "noise", "document", "topics"
    )  # fmt: skip

    features: int = 32
    noise: float = 0.0
    model: str = "packaged:tiny-lm"
    hook: str = "blocks.3.hook_resid_pre"
    text: str = "packaged:python-docs"
    context: int = 128
    words: int = 4
    strength: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words < 1 or self.strength <= 0:
            raise CanonError(
                "'words' must be at least 1 and 'strength' above 0, "
                f"got {self.words} and {self.strength}"
            )

    @property
    def reads(self) -> ModelOnText:
        """The model on its text, without what is planted."""
        return ModelOnText(self.model, self.hook, self.text, context=self.context)

    def check(self, data: DataSpec) -> None:
        """The checks of a world, and of a model on a text."""
        super().check(data)
        self.reads.check(data)

    def size(self, data: DataSpec) -> DataSize:
        """The model's d."""
        return replace(super().size(data), d=self.reads.size(data).d)

    def identity(self, data: DataSpec, memory: Remembers) -> Mapping[str, Any]:
        """Model and text by their content, and all settings."""
        settings = dict(super().identity(data, memory)["settings"])
        settings["model"] = model_identity(self.model, folder=data.root)
        settings["text"] = text_identity(self.reads.text_source(data.root), memory)
        return {"kind": self.kind(), "version": self.version, "settings": settings}

    def opened(self, data: DataSpec) -> Drawing:
        """The model and the text, read."""
        return _Model(self, data)


@dataclass(frozen=True)
class _Model:
    """A planted world with its model loaded."""

    world: Planted
    data: DataSpec

    @cached_property
    def _lm(self) -> LanguageModel:
        return self.world.reads.language_model(self.data, "cpu")

    @cached_property
    def _hook(self) -> HookPoint:
        from saebench_canon.data.hook_points import resolve_hook

        return resolve_hook(self._lm.model, self.world.hook)

    @cached_property
    def _tokens(self) -> Tokens:
        """All windows of the text."""
        from saebench_canon.inputs.tokens import tokenize

        documents = self.world.reads.documents(self.data)
        return tokenize(documents, self._lm, context=self.world.context)

    def _of(self, purpose: str) -> Tokens:
        import torch

        scored = torch.arange(self._tokens.documents) % EVERY == 0
        return self._tokens.of(scored if purpose == "scored" else ~scored)

    @cached_property
    def _feature_of(self) -> Tensor:
        """The feature that each token of the vocabulary triggers, −1 for none, [vocabulary]."""
        import torch

        counts = torch.bincount(self._tokens.input_ids[self._tokens.mask])
        there = counts.nonzero()[:, 0]
        needed = self.world.features * self.world.words
        if needed > len(there):
            raise CanonError(
                f"{self.world.features} features with {self.world.words} tokens each need {needed} "
                f"tokens, and the text has {len(there)} different ones",
                where=self.data.where,
            )
        often = there[counts[there].argsort(descending=True, stable=True)][: OFTEN * needed]
        order = torch.randperm(len(often), generator=self.world.generator("words"))[:needed]
        feature = torch.full((int(there.max()) + 1,), -1)
        feature[often[order]] = torch.arange(needed) // self.world.words
        return feature

    @cached_property
    def _d(self) -> int:
        return int(self._x(self._tokens.at(slice(0, 1))).shape[1])

    @cached_property
    def _code(self) -> float:
        """What is added, as a code: the same for every feature."""
        norms = self._x(self._of("scored").at(slice(0, USUAL))).norm(dim=1)
        return self.world.strength * float(norms.median())

    def _x(self, tokens: Tokens) -> Tensor:
        from saebench_canon.inputs.extraction import extract

        return extract(self._lm, tokens, self._hook).x

    def rows(self) -> Tensor:
        """Random directions."""
        from saebench_canon.kernels.nulls import isotropic

        chance = self.world.generator("directions")
        return isotropic(self.world.features, self._d, chance).float()

    def parents(self) -> Tensor:
        """None."""
        return self.world.parents()

    def names(self) -> Sequence[str]:
        """The tokens that trigger each feature."""
        decode = self._lm.tokenizer.decode
        names = []
        for feature in range(self.world.features):
            words = (self._feature_of == feature).nonzero()[:, 0].tolist()
            names.append(f"{feature}: " + ", ".join(repr(decode([word])) for word in words))
        return names

    def available(self, purpose: str) -> int:
        """How many tokens the documents have that are read for this."""
        return int(self._of(purpose).counts.sum())

    def blocks(self, tokens: int, purpose: str) -> Iterator[Block]:
        """The text in order, some windows at a time."""
        import torch

        from saebench_canon.kernels.codes import Codes

        rows, read = self.rows(), self._of(purpose)
        for start in range(0, len(read), WINDOWS):
            part = read.at(slice(start, start + WINDOWS))
            feature = self._feature_of[part.input_ids[part.mask]]
            codes = torch.zeros(len(feature), self.world.features)
            planted = (feature >= 0).nonzero()[:, 0]
            codes[planted, feature[planted]] = self._code
            x = self._x(part) + codes @ rows
            count = min(len(x), tokens)
            place = Place(part.token_doc, part.positions)
            yield Block(x[:count], Codes.from_dense(codes[:count]), place.to(count))
            tokens -= count
            if tokens == 0:
                return
