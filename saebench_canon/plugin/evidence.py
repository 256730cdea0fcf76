"""What is known of a latent, for plugins that label latents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["latent", "meta-latent"]


@dataclass(frozen=True)
class Token:
    """A token, its share of the latent's summed codes, and its share of the text.

    `surplus` is its part of the divergence between these two distributions. It is small for a
    token that is as common elsewhere in the text.
    """

    text: str
    share: float
    base: float

    @property
    def surplus(self) -> float:
        """`share · log(share / base)`, in nats; 0 for what is rarer than in the text."""
        return self.share * math.log(max(self.share / self.base, 1.0))


@dataclass(frozen=True)
class Promoted:
    """A token and its logit along the direction, in standard deviations above the mean token's."""

    text: str
    z: float


@dataclass(frozen=True)
class Context:
    """A token on which a latent fires, with the text around it and the document's name."""

    before: str
    token: str
    after: str
    code: float
    document: str


@dataclass(frozen=True)
class Part:
    """A latent that uses a meta-latent, with the meta-latent's weight in it and its label."""

    latent: int
    weight: float
    label: str | None


@dataclass(frozen=True)
class Evidence:
    """What is known of a latent (or meta-latent) of an SAE; fields without data are empty.

    A meta-latent's tokens, contexts and promoted tokens are weighted means over its latents;
    `parts` are the heaviest of these, and empty for a latent.
    """

    sae: str
    latent: int
    kind: Kind = "latent"
    tokens: tuple[Token, ...] = ()
    contexts: tuple[Context, ...] = ()
    promoted: tuple[Promoted, ...] = ()
    parts: tuple[Part, ...] = ()
