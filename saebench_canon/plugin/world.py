"""A world: activations that are made of known features, to hold scores against the truth.

    @dataclass(frozen=True)
    class Pairs(World):
        '''Features that fire in pairs.'''

        named: ClassVar[str] = "pairs"  # [data.w] synthetic = "pairs"
        together: float = 0.9

        def fires(self, place, chance):
            on = super().fires(place, chance).view(len(place), -1, 2)
            ...

A world is a kind of data: its fields are the keys of its tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from saebench_canon.errors import CanonError
from saebench_canon.plugin.data import DataSize, DataSource, DataSpec, Gives

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from saebench_canon.kernels.codes import Codes
    from saebench_canon.plugin.fingerprint import Remembers

TOKENS = 32_768  # that scores use, unless a table says otherwise
BLOCK = 4096  # tokens that are drawn at once, at most
CODES = 2**22  # codes that are drawn at once, unless a document needs more
OFTEN = 0.5  # no feature fires on a larger share of tokens, unless a world says so
LARGEST = 2**24  # features times d


@dataclass(frozen=True, eq=False)
class Place:
    """Where tokens stand: each one's document `doc` [n] and its position in it [n], from 0 on."""

    doc: Tensor
    position: Tensor

    def __len__(self) -> int:
        return len(self.doc)

    def to(self, stop: int) -> Place:
        """The first tokens."""
        return Place(self.doc[:stop], self.position[:stop])


@dataclass(frozen=True, eq=False)
class Block:
    """Some tokens of a world: activations `x` [n, d], codes of its features, and where they are."""

    x: Tensor
    codes: Codes
    place: Place


@dataclass(frozen=True, eq=False)
class TrueFeatures:
    """The features of a world: unit `rows` [F, d], `codes` of the tokens that scores use [n, F].

    `parents` [F] is the feature without which each one does not fire, −1 for none; `names` [F].
    `others` says whether the activations hold features besides these.
    """

    rows: Tensor
    codes: Codes
    parents: Tensor
    names: Sequence[str]
    others: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def that_fire(self) -> tuple[TrueFeatures, Tensor]:
        """The features that fire on some of the tokens, and their numbers."""
        import torch

        from saebench_canon.kernels.codes import Codes

        index = self.codes.live.nonzero()[:, 0]
        number = torch.full((len(self) + 1,), -1)  # the last one for −1
        number[index] = torch.arange(len(index))
        codes = Codes(
            self.codes.indptr, number[self.codes.indices.long()], self.codes.values, len(index)
        )
        parents = number[self.parents[index]]
        names = [self.names[feature] for feature in index.tolist()]
        return TrueFeatures(self.rows[index], codes, parents, names, self.others), index

    @property
    def density(self) -> Tensor:
        """The share of tokens on which each feature fires, [F] float64."""
        return self.codes.counts.double() / max(len(self.codes), 1)


class Drawing(Protocol):
    """A world that is open: what it needs is read, and tokens can be drawn."""

    def rows(self) -> Tensor:
        """The features' unit directions, [F, d] float32."""

    def parents(self) -> Tensor:
        """The feature without which each one does not fire, [F] int64; −1 for none."""

    def names(self) -> Sequence[str]:
        """A name for each feature."""

    def available(self, purpose: str) -> int | None:
        """How many tokens can be drawn for a purpose ("scored", "training"); None: any number."""

    def blocks(self, tokens: int, purpose: str) -> Iterator[Block]:
        """So many tokens, a block at a time; the first ones do not depend on how many follow."""


@dataclass(frozen=True)
class World(DataSource):
    """Sparse sums of features of known direction, with a little noise.

    `d` dimensions and `features`; a token has `l0` of them on average, feature i with a probability
    like 1/i^`zipf`, but at most half (where rates reach it, and where features exclude one another,
    a token has fewer). Codes lie between 1 and 1 + `spread`; `noise` is the standard
    deviation of what is added to each coordinate. Documents have `document` tokens, and topics that
    change how often features fire (`topics`, the standard deviation of the logarithm).
    """

    gives: ClassVar[frozenset[Gives]] = frozenset({"acts", "features"})
    without: ClassVar[tuple[str, ...]] = ()  # keys of every world that mean nothing in this one
    holds_others: ClassVar[bool] = False  # whether activations hold features that are not known

    synthetic: str
    d: int = 64
    features: int = 128
    seed: int = 0
    l0: float = 4.0
    zipf: float = 1.0
    spread: float = 1.0
    noise: float = 0.03
    document: int = 128
    topics: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in self.without and getattr(self, field.name) != field.default:
                raise CanonError(f"'{field.name}' means nothing in the world '{self.named}'")
        for key, least, most in (("d", 2, LARGEST), ("document", 1, BLOCK), ("zipf", 0, 10)):
            if not least <= getattr(self, key) <= most:
                value = getattr(self, key)
                raise CanonError(f"'{key}' must be from {least} to {most}, got {value}")
        if self.count < 1:
            raise CanonError(f"a world needs features, got {self.count}")
        for key in ("seed", "spread", "noise", "topics"):
            if getattr(self, key) < 0:
                raise CanonError(f"'{key}' must not be negative, got {getattr(self, key)}")
        if self.count * self.d > LARGEST:
            raise CanonError(
                f"{self.count:,} features of {self.d:,} dimensions are too many",
                hint=f"features × d may be {LARGEST:,} at most.",
            )
        if not 0 < self.l0 <= OFTEN * self.count:
            raise CanonError(
                f"'l0' must be above 0 and at most half of the {self.count} features, got {self.l0}"
            )

    @property
    def count(self) -> int:
        """The number of features."""
        return self.features

    # What a world may say otherwise.

    def directions(self, chance: Generator) -> Tensor:
        """The features' directions [F, d], of any norm."""
        import torch

        return torch.randn(self.count, self.d, generator=chance, dtype=torch.float64)

    def fires(self, place: Place, chance: Generator) -> Tensor:
        """Which features fire on which tokens, [n, F] bool."""
        import torch

        likely = self.rates().expand(len(place), -1)
        if self.topics:
            first = place.doc[0] if len(place) else 0
            documents = int(place.doc[-1] - first) + 1 if len(place) else 0
            topics = torch.randn(documents, self.count, generator=chance)
            times = torch.exp(self.topics * topics - self.topics**2 / 2)  # 1 on average
            likely = likely * times[place.doc - first]
        return torch.rand(len(place), self.count, generator=chance) < likely.clamp(max=OFTEN)

    def codes(self, place: Place, chance: Generator) -> Tensor:
        """How strongly each feature fires on each token, [n, F] float32; 0 where it does not."""
        import torch

        on = self.fires(place, chance)
        return on * (1 + self.spread * torch.rand(on.shape, generator=chance))

    def added(self, place: Place, chance: Generator) -> Tensor | None:
        """What activations hold that is no feature, [n, d] or None."""
        return None

    def parents(self) -> Tensor:
        """The feature without which each one does not fire, [F] int64; −1 for none."""
        import torch

        return torch.full((self.count,), -1)

    def names(self) -> Sequence[str]:
        """A name for each feature."""
        return [f"feature {number}" for number in range(self.count)]

    # What every world does.

    def rates(self, total: float | None = None, count: int | None = None) -> Tensor:
        """Zipf's probabilities [F] that sum to `l0`, none above a half."""
        import torch

        number = self.count if count is None else count
        total = self.l0 if total is None else total
        shares = torch.arange(1, number + 1, dtype=torch.float64) ** -self.zipf
        rates = total * shares / shares.sum()
        for _ in range(number):
            full = rates >= OFTEN
            left = total - OFTEN * float(full.sum())
            if bool(full.all()) or left <= 0:
                break
            spread = left * shares / shares[~full].sum()
            raised = torch.where(full, OFTEN, spread)
            if torch.equal(raised, rates):
                break
            rates = raised
        return rates.clamp(max=OFTEN).float()

    def rows(self) -> Tensor:
        """The features' unit directions, [F, d] float32."""
        from saebench_canon.kernels.cosine import unit

        return unit(self.directions(self.generator("directions"))).float()

    def blocks(self, tokens: int, purpose: str) -> Iterator[Block]:
        """So many tokens, a block at a time; the first ones do not depend on how many follow."""
        import torch

        from saebench_canon.kernels.codes import Codes

        rows = self.rows()
        documents = max(1, min(BLOCK, CODES // self.count) // self.document)
        height = documents * self.document
        position = torch.arange(self.document).repeat(documents)
        doc = torch.arange(documents).repeat_interleave(self.document)
        for number, start in enumerate(range(0, tokens, height)):
            count = min(height, tokens - start)
            chance = self.generator(purpose, number)
            place = Place(doc + number * documents, position)
            codes = self.codes(place, chance)
            if not bool((codes >= 0).all()):
                raise CanonError(f"the world '{self.named}' has a code that is negative or none")
            x = codes @ rows + self.noise * torch.randn(height, self.d, generator=chance)
            added = self.added(place, chance)
            x = x if added is None else x + added
            yield Block(x[:count], Codes.from_dense(codes[:count]), place.to(count))

    def check(self, data: DataSpec) -> None:
        """Raises CanonError for a holdout: trainings draw tokens of their own."""
        if data.holdout is not None:
            raise CanonError(
                "'holdout' is not for worlds: SAEs are trained on fresh tokens",
                hint="Leave it out.",
            )

    def opened(self, data: DataSpec) -> Drawing:
        """The world, ready to be drawn from; most need nothing for it."""
        return self

    def available(self, purpose: str) -> int | None:
        """Any number of tokens."""
        return None

    def size(self, data: DataSpec) -> DataSize:
        """Tokens and d, from the table."""
        return DataSize(data.tokens or TOKENS, self.d)

    def identity(self, data: DataSpec, memory: Remembers) -> Mapping[str, Any]:
        """All settings: the same ones give the same activations."""
        return {"kind": self.kind(), "version": self.version, "settings": asdict(self)}

    def describe(self) -> str:
        """The world, its features and its dimensions."""
        return f"the world {self.named}, {self.count} features in {self.d} dimensions"

    def __str__(self) -> str:
        return f"{self.kind()} {self.named}"

    def generator(self, *purpose: str | int) -> Generator:
        """A generator for one purpose."""
        from saebench_canon.kernels.random_generators import generator

        return generator(self.seed, "world", self.named or "", *purpose)
