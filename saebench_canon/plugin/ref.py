"""A ref: the URI of one SAE, `saelens://RELEASE/ID[@revision]` on a hub or `file:PATH` on disk."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from saebench_canon.errors import CanonError, expanded

# at least two letters, so that a drive such as C: is a path
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_HINT = "A ref is SCHEME://NAME[@revision] on a hub, SCHEME:PATH on disk, or a bare path."


@dataclass(frozen=True)
class Ref:
    """One SAE's scheme and target: a hub name (with its revision) or, when local, a path."""

    scheme: str
    target: str
    revision: str | None = None
    local: bool = False

    @classmethod
    def parse(cls, text: str) -> Ref:
        """The ref in a text; raises CanonError for a bare path, which has no scheme."""
        match = _SCHEME.match(text)
        if match is None:
            raise CanonError(f"'{text}' is not a ref", hint=_HINT)
        scheme, rest = match[1].lower(), text[match.end() :]
        if scheme == "file":
            rest = rest.removeprefix("//")
        if not rest.startswith("//"):
            if not rest.strip():
                raise CanonError(f"the ref '{text}' names no path", hint=_HINT)
            return cls(scheme, rest, local=True)
        target, at_sign, revision = rest[2:].partition("@")
        if "@" in revision or (at_sign and not revision):
            raise CanonError(f"the ref '{text}' has no revision after its '@'", hint=_HINT)
        if ".." in (*target.split("/"), *revision.split("/")) or revision.startswith("/"):
            raise CanonError(f"the ref '{text}' leads out of its repository", hint=_HINT)
        if not target.strip("/"):
            raise CanonError(f"the ref '{text}' names nothing after '{scheme}://'", hint=_HINT)
        return cls(scheme, target.strip("/"), revision or None)

    @property
    def path(self) -> Path:
        """The path of a local ref."""
        if not self.local:
            raise CanonError(f"'{self}' is on a hub and has no path")
        return expanded(self.target)

    def within(self, folder: Path) -> Ref:
        """The same ref with a relative path taken from the folder."""
        return replace(self, target=str(folder / self.path)) if self.local else self

    def __str__(self) -> str:
        if self.local:
            return f"{self.scheme}:{self.target}"
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.scheme}://{self.target}{revision}"


def is_bare_path(text: str) -> bool:
    """Whether the text is a path, without a scheme."""
    return _SCHEME.match(text) is None
