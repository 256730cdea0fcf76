"""What a latent is called: from evidence of where it fires to a label, by a hook."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from saebench_canon.errors import CanonError
from saebench_canon.token_text import named

if TYPE_CHECKING:
    from saebench_canon.plugins import Registry

Kind = Literal["latent", "meta-latent"]
WORDS = 4  # tokens in a label, at most
LEAST = 0.25  # of the first token's surplus: what another needs to stand in the label


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


def token_list(evidence: Evidence) -> str | None:
    """The built-in label: tokens with most of the codes that stand out, or else promoted ones."""
    surplus: dict[str, float] = {}
    for token in evidence.tokens:
        name = named(token.text)
        surplus[name] = surplus.get(name, 0.0) + token.surplus
    names = sorted(surplus, key=lambda name: -surplus[name])[:WORDS]
    names = [name for name in names if surplus[name] >= LEAST * surplus[names[0]]]
    if names:
        return " · ".join(names)
    promoted = [*dict.fromkeys(named(each.text) for each in evidence.promoted)]
    return f"→ {' · '.join(promoted[:WORDS])}" if promoted else None


def label_of(evidence: Evidence, registry: Registry) -> str | None:
    """The label that the first plugin with an answer gives, in one line; None if none has any."""
    what = f"{evidence.kind} {evidence.latent} of {evidence.sae}"
    try:
        found = registry.manager.hook.canon_label(evidence=evidence)
    except CanonError:
        raise
    except Exception as error:  # a plugin's own code
        raise CanonError(
            f"a plugin fails to label {what}: {type(error).__name__}: {error}"
        ) from error
    if found is not None and not isinstance(found, str):
        raise CanonError(f"a plugin labels {what} with {found!r}, which is no text")
    return " ".join(found.split()) or None if found else None
