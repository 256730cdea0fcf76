"""Worlds in which a token has attributes: three features, coloured shapes, any product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from saebench_canon.errors import CanonError
from saebench_canon.plugin.world import Place, World

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class ThreeFeatures(World):
    """Features 1 and 2 are frequent and often together, 3 is rare.

    `both` is the chance of 1 and 2 together, `alone` of each of them alone, `rare` of 3. Does a
    latent become "1 and 2", and is 3 lost?
    """

    named: ClassVar[str] = "three-features"
    without: ClassVar[tuple[str, ...]] = ("features", "l0", "zipf", "topics")

    d: int = 16
    features: int = 3
    l0: float = 1.0
    both: float = 0.4
    alone: float = 0.1
    rare: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        chances = (self.both, self.alone, self.rare)
        if min(chances) < 0 or self.rare > 1 or self.both + 2 * self.alone > 1:
            raise CanonError("'both', twice 'alone' and 'rare' must be chances, 1 in all at most")

    def fires(self, place: Place, chance: Generator) -> Tensor:
        """One lot says which of 1 and 2 fire, another whether 3 does."""
        import torch

        lot = torch.rand(len(place), generator=chance)
        first = lot < self.both + self.alone
        second = (lot < self.both) | (
            (lot >= self.both + self.alone) & (lot < self.both + 2 * self.alone)
        )
        third = torch.rand(len(place), generator=chance) < self.rare
        return torch.stack([first, second, third], dim=1)

    def names(self) -> list[str]:
        """1, 2 and 3."""
        return ["1, often with 2", "2, often with 1", "3, rare"]


@dataclass(frozen=True)
class Product(World):
    """A token is a thing with the chance `things`, and a thing has a value of every attribute.

    The `attributes` have `values` each, which are the features; how often a combination occurs
    follows Zipf's law, so an SAE that is large enough can give each frequent one a latent.
    """

    named: ClassVar[str] = "product"
    without: ClassVar[tuple[str, ...]] = ("features", "l0", "topics")

    features: int = 0
    l0: float = 1.0
    attributes: int = 3
    values: int = 6
    things: float = 0.8

    def __post_init__(self) -> None:
        if self.attributes < 1 or self.values < 2 or self.values**self.attributes > 1_000_000:
            raise CanonError(
                f"there must be at least 1 attribute of 2 values, and a million combinations at "
                f"most, got {self.attributes} of {self.values}"
            )
        if not 0 < self.things <= 1:
            raise CanonError(f"'things' must be a chance, above 0 to 1, got {self.things}")
        super().__post_init__()

    @property
    def count(self) -> int:
        """Every value of every attribute."""
        return self.attributes * self.values

    def fires(self, place: Place, chance: Generator) -> Tensor:
        """The values of the combination that a lot picks."""
        import torch

        combinations = self.values**self.attributes
        order = torch.randperm(combinations, generator=self.generator("combinations"))
        shares = (torch.arange(combinations, dtype=torch.float64) + 1) ** -self.zipf
        edges = torch.cumsum(shares / shares.sum(), 0)
        lot = torch.rand(len(place), generator=chance, dtype=torch.float64)
        rank = torch.searchsorted(edges, lot).clamp(max=combinations - 1)
        number = order[rank]
        thing = torch.rand(len(place), generator=chance) < self.things
        on = torch.zeros(len(place), self.attributes, self.values, dtype=torch.bool)
        for attribute in range(self.attributes):
            value = number // self.values**attribute % self.values
            on[torch.arange(len(place)), attribute, value] = thing
        return on.flatten(1)

    def names(self) -> list[str]:
        """Attribute and value."""
        return [
            f"value {value} of attribute {attribute}"
            for attribute in range(self.attributes)
            for value in range(self.values)
        ]


@dataclass(frozen=True)
class ColouredShapes(Product):
    """Colours and shapes: does a latent stand for "blue", or for "blue square"?"""

    named: ClassVar[str] = "coloured-shapes"
    without: ClassVar[tuple[str, ...]] = (*Product.without, "attributes")

    attributes: int = 2
    values: int = 8

    def names(self) -> list[str]:
        """Colours, and then shapes."""
        return [f"colour {n}" for n in range(self.values)] + [
            f"shape {n}" for n in range(self.values)
        ]
