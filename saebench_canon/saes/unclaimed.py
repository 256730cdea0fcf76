"""Which format a path looks like that no plugin claims."""

from __future__ import annotations

from pathlib import Path

from saebench_canon.errors import CanonError
from saebench_canon.plugin.known_formats import KNOWN, OPENAI, Known
from saebench_canon.saes.weights.torch_file import open_torch

_OPENAI_KEYS = frozenset({"pre_bias", "latent_bias"})


def lacking_plugin(path: Path, *, below: bool = True) -> Known | None:
    """The format of an unclaimed path, if it is one with a plugin of its own."""
    folders = [path.parent] if path.is_file() else [path]
    if below and path.is_dir():
        folders += [*path.glob("*/"), *path.glob("*/*/")]
    for folder in folders:
        names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        for known in KNOWN:
            fitting = [files for files in known.files if files <= names]
            if any(path.is_dir() or path.name in files for files in fitting):
                return known
    return OPENAI if _is_openai(path) else None


def _is_openai(path: Path) -> bool:
    """Whether a file has keys that no other format has."""
    if path.suffix != ".pt" or not path.is_file():
        return False
    try:
        return open_torch(path).keys() >= _OPENAI_KEYS
    except CanonError:
        return False
