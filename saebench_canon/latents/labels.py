"""What a latent is called: from evidence of where it fires to a label, by a hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.latents.token_text import named
from saebench_canon.plugin.evidence import Evidence

if TYPE_CHECKING:
    from saebench_canon.plugin.registry import Registry

WORDS = 4  # tokens in a label, at most
LEAST = 0.25  # of the first token's surplus: what another needs to stand in the label


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
