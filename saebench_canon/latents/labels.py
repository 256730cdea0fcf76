"""The label of a latent, from evidence of where it fires, by a hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.latents.token_text import label_text
from saebench_canon.plugin.evidence import Evidence

if TYPE_CHECKING:
    from saebench_canon.plugin.registry import Registry

WORDS = 4  # at most so many tokens in a label
LEAST = 0.25  # a token in a label has at least this share of the first one's surplus


def token_list(evidence: Evidence) -> str | None:
    """The built-in label: the tokens with the largest surplus, or else the promoted ones."""
    surplus: dict[str, float] = {}
    for token in evidence.tokens:
        name = label_text(token.text)
        surplus[name] = surplus.get(name, 0.0) + token.surplus
    names = sorted(surplus, key=lambda name: -surplus[name])[:WORDS]
    names = [name for name in names if surplus[name] >= LEAST * surplus[names[0]]]
    if names:
        return " · ".join(names)
    promoted = [*dict.fromkeys(label_text(token.text) for token in evidence.promoted)]
    return f"→ {' · '.join(promoted[:WORDS])}" if promoted else None


def label_of(evidence: Evidence, registry: Registry) -> str | None:
    """The label from the first plugin that gives one, on one line; None if none does."""
    description = f"{evidence.kind} {evidence.latent} of {evidence.sae}"
    try:
        label = registry.manager.hook.canon_label(evidence=evidence)
    except CanonError:
        raise
    except Exception as error:  # a plugin's own code
        raise CanonError(
            f"a plugin failed to label {description}: {type(error).__name__}: {error}"
        ) from error
    if label is not None and not isinstance(label, str):
        raise CanonError(f"a plugin labels {description} with {label!r}, which is not text")
    return " ".join(label.split()) or None if label else None
