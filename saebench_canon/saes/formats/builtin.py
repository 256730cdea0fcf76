"""The built-in adapters."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from saebench_canon.plugin.adapter import Adapter


@hookimpl
def canon_adapters() -> Iterable[Adapter]:
    """SAELens' releases and folders, and Gemma Scope."""
    from saebench_canon.saes.formats.gemma_scope import GEMMA_SCOPE
    from saebench_canon.saes.formats.saelens import SaeLensAdapter

    return [SaeLensAdapter(), GEMMA_SCOPE]


@hookimpl
def canon_claim(path: Path) -> str | None:
    """Folders of SAELens and of Gemma Scope."""
    from saebench_canon.saes.formats.gemma_scope import GEMMA_SCOPE
    from saebench_canon.saes.formats.saelens_folder import claim_saelens

    claims = [claim for claim in (claim_saelens(path), GEMMA_SCOPE.claim(path)) if claim]
    if len(claims) > 1:
        raise CanonError(
            f"'{path}' holds checkpoints of two formats",
            hint=f"Name one of them: {' or '.join(claims)}.",
        )
    return claims[0] if claims else None


@hookimpl(trylast=True)
def canon_recognise(path: Path) -> str | None:
    """Formats whose plugins are distributions of their own, told by the names of their files."""
    from saebench_canon.saes.unclaimed import lacking_plugin

    known = lacking_plugin(path)
    return None if known is None else known.scheme
