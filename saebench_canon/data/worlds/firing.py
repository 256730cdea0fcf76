"""Worlds that differ in which features fire together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from saebench_canon.errors import CanonError
from saebench_canon.plugin.world import OFTEN, Place, World

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class Independent(World):
    """Each feature fires whatever the others do."""

    named: ClassVar[str] = "independent"


@dataclass(frozen=True)
class Superposition(World):
    """Independent features, `ratio` times as many as dimensions."""

    named: ClassVar[str] = "superposition"
    without: ClassVar[tuple[str, ...]] = ("features",)

    features: int = 0
    ratio: float = 8.0

    @property
    def count(self) -> int:
        """`ratio` times d."""
        return round(self.ratio * self.d)


@dataclass(frozen=True)
class Correlated(World):
    """Features that fire together more or less often than by chance, each as often as alone.

    A feature fires where a normal variable is large; of its variance, `correlation` comes from
    `factors` that all features share (a Gaussian copula of low rank, as in SynthSAEBench).
    """

    named: ClassVar[str] = "correlated"
    without: ClassVar[tuple[str, ...]] = ("topics",)

    correlation: float = 0.5
    factors: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.correlation < 1:
            raise CanonError(f"'correlation' must be from 0 to below 1, got {self.correlation}")
        if self.factors < 1:
            raise CanonError(f"'factors' must be at least 1, got {self.factors}")

    def fires(self, place: Place, chance: Generator) -> Tensor:
        """Where the variable of a feature is above the level of its rate."""
        import torch

        loadings = torch.randn(self.count, self.factors, generator=self.generator("loadings"))
        loadings *= (self.correlation**0.5) / loadings.norm(dim=1, keepdim=True)
        shared = torch.randn(len(place), self.factors, generator=chance) @ loadings.T
        own = torch.randn(len(place), self.count, generator=chance)
        level = torch.special.ndtri(1 - self.rates().double()).float()
        fires: Tensor = shared + (1 - self.correlation) ** 0.5 * own > level
        return fires


@dataclass(frozen=True)
class Pairs(World):
    """Pairs of features: where one of a pair fires, both do with the chance `together`."""

    named: ClassVar[str] = "pairs"
    without: ClassVar[tuple[str, ...]] = ("topics",)

    together: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features % 2:
            raise CanonError(f"'features' must be even, got {self.features}")
        if not 0 <= self.together <= 1:
            raise CanonError(f"'together' must be a chance, 0 to 1, got {self.together}")

    def fires(self, place: Place, chance: Generator) -> Tensor:
        """A pair fires, and then both of it, or one."""
        import torch

        share = self.l0 / (1 + self.together)  # pairs on a token
        rates = self.rates(min(share, OFTEN * self.count / 2), self.count // 2)
        pair = torch.rand(len(place), self.count // 2, generator=chance) < rates
        both = torch.rand(pair.shape, generator=chance) < self.together
        first = torch.rand(pair.shape, generator=chance) < 0.5
        return torch.stack([pair & (both | first), pair & (both | ~first)], dim=2).flatten(1)


@dataclass(frozen=True)
class MutuallyExclusive(World):
    """Groups of `group` features, of which at most one fires on a token."""

    named: ClassVar[str] = "mutually-exclusive"

    group: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group < 2 or self.features % self.group:
            raise CanonError(
                f"'features' must be a multiple of 'group', of 2 or more, "
                f"got {self.features} and {self.group}"
            )

    def fires(self, place: Place, chance: Generator) -> Tensor:
        """Where several of a group would fire, one of them does."""
        import torch

        on = super().fires(place, chance)
        lots = torch.rand(on.shape, generator=chance) * on
        groups = lots.view(len(place), -1, self.group)
        return (on.view(groups.shape) & (groups == groups.amax(dim=2, keepdim=True))).flatten(1)


@dataclass(frozen=True)
class Dense(World):
    """`dense` features fire on half of the tokens; the rest are `l0` sparse ones."""

    named: ClassVar[str] = "dense"

    dense: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.dense < self.features:
            raise CanonError(
                f"'dense' must be some of the {self.features} features, got {self.dense}"
            )

    def rates(self, total: float | None = None, count: int | None = None) -> Tensor:
        """A half for the first, Zipf's for the others."""
        import torch

        sparse = super().rates(total, self.count - self.dense)
        return torch.cat([torch.full((self.dense,), OFTEN), sparse])

    def names(self) -> list[str]:
        """Which are dense."""
        kinds = ["dense"] * self.dense + ["feature"] * (self.count - self.dense)
        return [f"{kind} {number}" for number, kind in enumerate(kinds)]


@dataclass(frozen=True)
class Hierarchy(World):
    """Parents with `children` each, which fire only where their parent does.

    A parent's token has a child of it with the chance `share`: exactly one (`exclusive`), or each
    with an equal chance of its own, so that this is their mean number. Where a child says that its
    parent fires, SAEs leave the parent out of their codes: absorption.
    """

    named: ClassVar[str] = "hierarchy"
    without: ClassVar[tuple[str, ...]] = ("topics",)

    children: int = 3
    share: float = 0.8
    exclusive: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.children < 1 or self.features % (1 + self.children):
            raise CanonError(
                f"'features' must be a multiple of 1 + 'children', "
                f"got {self.features} and {self.children} children"
            )
        if not 0 <= self.share <= 1:
            raise CanonError(f"'share' must be a chance, 0 to 1, got {self.share}")

    @property
    def families(self) -> int:
        """The number of parents."""
        return self.count // (1 + self.children)

    def fires(self, place: Place, chance: Generator) -> Tensor:
        """Parents, and then their children."""
        import torch

        most = OFTEN * self.families
        rates = self.rates(min(self.l0 / (1 + self.share), most), self.families)
        parent = torch.rand(len(place), self.families, generator=chance) < rates
        shape = (*parent.shape, self.children)
        if self.exclusive:
            some = torch.rand(parent.shape, generator=chance) < self.share
            which = torch.randint(self.children, parent.shape, generator=chance)
            child = some[..., None] & (which[..., None] == torch.arange(self.children))
        else:
            child = torch.rand(shape, generator=chance) < self.share / self.children
        return torch.cat([parent, (child & parent[..., None]).flatten(1)], dim=1)

    def parents(self) -> Tensor:
        """−1 for the parents, which come first."""
        import torch

        first = torch.full((self.families,), -1)
        return torch.cat([first, torch.arange(self.families).repeat_interleave(self.children)])

    def names(self) -> list[str]:
        """Parents, and which parent a child is of."""
        parents = [f"parent {number}" for number in range(self.families)]
        children = [
            f"child {number} of {parent}" for parent in parents for number in range(self.children)
        ]
        return parents + children
