"""The files of one checkpoint, opened without trusting them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from saebench_canon.errors import LISTED, CanonError, nearest
from saebench_canon.saes.weights.json_file import read_json
from saebench_canon.saes.weights.lazy_tensor import Tensors
from saebench_canon.saes.weights.lfs import refuse_pointer
from saebench_canon.saes.weights.npz_file import open_npz
from saebench_canon.saes.weights.safetensors_file import open_safetensors
from saebench_canon.saes.weights.torch_file import open_torch


class Config(dict[str, Any]):
    """The JSON object of a configuration file; a missing key is an error that names both."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        super().__init__({
            key: Config(path, value) if isinstance(value, dict) else value
            for key, value in values.items()
        })  # fmt: skip
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise CanonError(f"the file has no '{key}'", where=str(self.path), hint=nearest(key, self))


@dataclass(frozen=True)
class Files:
    """A checkpoint's folder or its single file; remembers which files were opened."""

    path: Path
    opened: list[Tensors] = field(default_factory=list, repr=False)
    configs: list[Config] = field(default_factory=list, repr=False)

    @property
    def folder(self) -> Path:
        """The folder."""
        return self.path.parent if self.path.is_file() else self.path

    def find(self, pattern: str) -> Path | None:
        """The file whose name matches a pattern such as `*.pt`, if exactly one does."""
        if self.path.is_file():
            return self.path if fnmatchcase(self.path.name, pattern) else None
        matches = _matching(self.path, pattern)
        return matches[0] if len(matches) == 1 and matches[0].is_file() else None

    def has(self, name: str) -> bool:
        """Whether the folder holds a file of that name, or one that matches the pattern."""
        return (self.folder / name).is_file() or any(
            path.is_file() for path in _matching(self.folder, name)
        )

    def json(self, name: str) -> Config:
        """The JSON object in a file of the folder."""
        path = self._inside(name)
        config = Config(path, read_json(path))
        self.configs.append(config)
        return config

    def safetensors(self, name: str) -> Tensors:
        """The tensors of a safetensors file, unread."""
        return self._open(name, open_safetensors)

    def npz(self, name: str) -> Tensors:
        """The arrays of an .npz file, unread."""
        return self._open(name, open_npz)

    def torch(self, name: str) -> Tensors:
        """What a file of `torch.save` holds: tensors unread, other values as they are."""
        return self._open(name, open_torch)

    def _open(self, name: str, open_file: Callable[[Path], Tensors]) -> Tensors:
        path = self._inside(name)
        try:
            refuse_pointer(path)
            tensors = open_file(path)
        except OSError as error:
            raise CanonError(f"the file cannot be read ({error})", where=str(path)) from error
        self.opened.append(tensors)
        return tensors

    def _inside(self, name: str) -> Path:
        """A file of the folder, by name or pattern; a link to a file outside it is refused."""
        path = self.folder / name
        if not path.is_file():
            path = self._matched(name)
        folder, real = self.folder.resolve(), path.resolve()
        if not real.is_relative_to(folder) and not _of_hub_cache(self.folder, real):
            raise CanonError(
                f"{path.name} is a link to a file outside the folder", where=str(self.folder),
                hint="Copy the file into the folder, or name the folder that holds it.",
            )  # fmt: skip
        return path

    def _matched(self, pattern: str) -> Path:
        """The file that the pattern means: the named one if it matches, or the only one."""
        if self.path.is_file() and fnmatchcase(self.path.name, pattern):
            return self.path
        matches = [path for path in _matching(self.folder, pattern) if path.is_file()]
        if len(matches) == 1:
            return matches[0]
        where = str(self.folder)
        if matches:
            raise CanonError(
                f"{len(matches)} files match {pattern}", where=where,
                hint=f"Name one of them: {_names(matches)}.",
            )  # fmt: skip
        files = [path for path in _matching(self.folder, "*") if path.is_file()]
        raise CanonError(
            f"the folder has no {pattern}", where=where,
            hint=f"It has {_names(files)}." if files else None,
        )  # fmt: skip


def _names(files: Sequence[Path]) -> str:
    """The names of files, those beyond the first twelve as a number."""
    more = f" and {len(files) - LISTED} more" if len(files) > LISTED else ""
    return ", ".join(file.name for file in files[:LISTED]) + more


def _matching(folder: Path, pattern: str) -> list[Path]:
    """What in the folder has a name that matches, in order; nothing if it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if fnmatchcase(path.name, pattern))
    except OSError:
        return []


def _of_hub_cache(folder: Path, real: Path) -> bool:
    """Whether a file is a blob of the hub's cache that the folder is a snapshot in."""
    parts = folder.resolve().parts
    if "snapshots" not in parts:
        return False
    depth = len(parts) - 1 - parts[::-1].index("snapshots")
    repository = Path(*parts[:depth])
    return repository.name.startswith("models--") and real.parent == repository / "blobs"
