"""The built-in trainers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from saebench_canon.plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from saebench_canon.plugin.trainer import Trainer


@hookimpl
def canon_trainers() -> Iterable[Trainer]:
    """SAELens' training classes."""
    from saebench_canon.trainers import architectures as saelens

    return saelens.TRAINERS
