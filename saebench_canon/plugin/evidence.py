"""What is known of a latent: what a plugin that labels latents gets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["latent", "meta-latent"]


@dataclass(frozen=True)
class Token:
    """A token, the share of the latent's summed codes that falls on it, and its share of the text.

    `surplus` is what it adds to the divergence of the former shares from the latter: common words
    that stand out no more than in any text have little.
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
    """A token on which a latent fires, amid its text; `document` names where it stands."""

    before: str
    token: str
    after: str
    code: float
    document: str


@dataclass(frozen=True)
class Part:
    """A latent that a meta-latent is made of, with its weight in it and its own label."""

    latent: int
    weight: float
    label: str | None


@dataclass(frozen=True)
class Evidence:
    """What is known of a latent (or meta-latent) of an SAE; what the data lacks is empty.

    A meta-latent's tokens, contexts and promoted tokens are those of its latents, weighed; `parts`
    are the heaviest of them, and empty for a latent.
    """

    sae: str
    latent: int
    kind: Kind = "latent"
    tokens: tuple[Token, ...] = ()
    contexts: tuple[Context, ...] = ()
    promoted: tuple[Promoted, ...] = ()
    parts: tuple[Part, ...] = ()
