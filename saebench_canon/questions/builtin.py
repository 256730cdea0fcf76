"""The built-in questions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from saebench_canon.plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from saebench_canon.plugin.question import Question


@hookimpl
def canon_questions() -> Iterable[Question]:
    """Complete, atomic, unique: whether a dictionary's latents are canonical units; and which."""
    from saebench_canon.questions.atomic import ATOMIC
    from saebench_canon.questions.canonical_latents import CANONICAL
    from saebench_canon.questions.complete import COMPLETE
    from saebench_canon.questions.unique import UNIQUE

    return [COMPLETE, ATOMIC, UNIQUE, CANONICAL]
