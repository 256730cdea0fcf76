"""What is in a folder; unlike `glob`, an error if the folder cannot be read."""

from __future__ import annotations

import os
from pathlib import Path


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder with this suffix, sorted; none if there is no folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in sorted(names) if Path(name).suffix == suffix]


def paths_below(folder: Path) -> list[Path]:
    """All files and folders below a folder, sorted."""

    def refuse(error: OSError) -> None:
        raise error

    walked = os.walk(folder, onerror=refuse)
    return sorted(Path(top, name) for top, folders, files in walked for name in (*folders, *files))
