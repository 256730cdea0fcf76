"""A report: a way to write a run into a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

Tables = Callable[[str, str], "pd.DataFrame | None"]  # of a case's id and a table's name


@dataclass(frozen=True)
class Report:
    """A writer of files with one suffix, from rows as `show --json` prints them.

    It is called as `write(rows, metrics, path)`, with the rows of the run and the metrics that
    this program knows. With `reads_tables` it also gets `tables=`, a function from a case's id
    and a table's name to the table that its record has, or to None. With `reads_answers` it also
    gets `answers=`, the answers (`plugin.question.Answer`) to the questions of the run.
    """

    suffix: str
    write: Callable[..., None]
    help: str = ""
    reads_tables: bool = False
    reads_answers: bool = False
