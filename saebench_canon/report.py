"""What a report is: a way to write the tables of a run into a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Report:
    """A writer of files with one suffix, from rows as `show --json` prints them."""

    suffix: str
    write: Callable[[Sequence[Any], Path], None]
    help: str = ""
