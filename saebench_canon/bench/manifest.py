"""The digests of an artefact's files, so that a damaged artefact is never used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from saebench_canon.bench.folders import paths_below
from saebench_canon.bench.store_faults import ABSENT
from saebench_canon.saes.weights.regular_file import read_regular

MANIFEST = "manifest.json"


def write_manifest(folder: Path, fingerprint: str) -> None:
    """Write which artefact it is, and the SHA-256 of every file of it."""
    manifest = {"artefact": fingerprint, "files": _digests(folder)}
    text = json.dumps(manifest, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def is_intact(folder: Path) -> bool:
    """Whether a folder is the artefact of its name, with exactly the files of its manifest.

    Raises OSError for a file that cannot be read: it may be intact, and must not be made again.
    """
    try:
        expected = json.loads(read_regular(folder / MANIFEST))
        return bool(expected == {"artefact": folder.name, "files": _digests(folder)})
    except (*ABSENT, ValueError, RecursionError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in paths_below(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
