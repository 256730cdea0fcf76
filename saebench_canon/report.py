"""What a report is: a way to write the tables of a run into a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saebench_canon.rows import Row
    from saebench_canon.scores import Metric


@dataclass(frozen=True)
class Report:
    """A writer of files with one suffix, from rows as `show --json` prints them."""

    suffix: str
    write: Callable[[Sequence[Row], Sequence[Metric], Path], None]
    help: str = ""
