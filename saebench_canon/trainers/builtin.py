"""The built-in trainers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from saebench_canon.plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from saebench_canon.plugin.trainer import Trainer


@hookimpl
def canon_trainers() -> Iterable[Trainer]:
    """SAELens' training classes, and SAEs that are bad on purpose."""
    from saebench_canon.trainers import architectures as saelens
    from saebench_canon.trainers.spoiled import spoiled

    return [*saelens.TRAINERS, spoiled]
