"""The built-in label of a latent, used where no plugin gives one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from saebench_canon.plugin.evidence import Evidence


@hookimpl(trylast=True)
def canon_label(evidence: Evidence) -> str | None:
    """The tokens on which the latent fires most, or else those that it promotes."""
    from saebench_canon.latents.labels import token_list

    return token_list(evidence)
