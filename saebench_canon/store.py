"""Where records, artefacts and runs are kept: plain files, each written whole or not at all.

records/ID.json              one measured case
errors/ID.json               one failed case, until it is measured
tables/ID/NAME.parquet       per-latent and per-step tables of a record
artefacts/FINGERPRINT/       inputs and trained SAEs
runs/TIME-SUITE-DIGEST.json  what a run was: its cases by name, versions, hardware, flags
claims/FINGERPRINT.lock      who is making what; released by the system when its owner dies
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from saebench_canon.errors import CanonError
from saebench_canon.record import Record

DEFAULT = Path(".canon")


class Store:
    """A folder of records, artefacts and runs that several processes may share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CanonError(f"the store {root} cannot be made: {error}", where="--store") from None

    def record(self, case_id: str) -> Record | None:
        """The record of a case, if it is measured; a damaged file counts as not measured."""
        data = self._read("records", case_id)
        try:
            return None if data is None else Record.from_json(data)
        except (TypeError, KeyError):
            return None

    def error(self, case_id: str) -> dict[str, Any] | None:
        """Why a case failed when it was last tried."""
        return self._read("errors", case_id)

    def keep_record(self, record: Record) -> None:
        """Keep a measured case, and forget that it ever failed."""
        self._write(self.root / "records" / f"{record.id}.json", record.to_json())
        (self.root / "errors" / f"{record.id}.json").unlink(missing_ok=True)

    def keep_error(self, case_id: str, error: dict[str, Any]) -> None:
        """Keep why a case failed, apart from records."""
        self._write(self.root / "errors" / f"{case_id}.json", error)

    def table(self, case_id: str, name: str) -> Path:
        """Where a record's table belongs."""
        folder = self.root / "tables" / case_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.parquet"

    def keep_run(self, name: str, run: dict[str, Any]) -> None:
        """Keep what a run was."""
        self._write(self.root / "runs" / f"{name}.json", run)

    def runs(self) -> list[Path]:
        """The run files, oldest first."""
        return sorted((self.root / "runs").glob("*.json"))

    def artefact(self, fingerprint: str, make: Callable[[Path], None], *, what: str) -> Path:
        """The folder of an artefact; made if it is not there, by one process while others wait."""
        folder = self.root / "artefacts" / fingerprint
        if folder.is_dir():
            return folder
        with self.claim(fingerprint, what=what):
            if folder.is_dir():
                return folder
            folder.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{fingerprint[:8]}-", dir=folder.parent))
            try:
                make(draft)
                draft.rename(folder)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        return folder

    @contextmanager
    def claim(self, fingerprint: str, *, what: str) -> Iterator[None]:
        """Hold the right to make something; waits while another process holds it."""
        from saebench_canon.progress import waiting

        folder = self.root / "claims"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{fingerprint}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            with waiting(what):
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def remember(self, key: str, make: Callable[[], str]) -> str:
        """An answer that is slow to find, kept under its question."""
        from saebench_canon.fingerprint import fingerprint

        path = self.root / "answers" / f"{fingerprint(key)}.json"
        kept = self._load(path)
        if kept is not None and kept.get("key") == key:
            return str(kept["answer"])
        answer = make()
        self._write(path, {"key": key, "answer": answer})
        return answer

    def _read(self, kind: str, case_id: str) -> dict[str, Any] | None:
        return self._load(self.root / kind / f"{case_id}.json")

    def _load(self, path: Path) -> dict[str, Any] | None:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None
        return data if isinstance(data, dict) else None

    def _write(self, path: Path, data: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False)
        handle, draft = tempfile.mkstemp(
            prefix=f".{path.stem[:8]}-", suffix=".tmp", dir=path.parent
        )
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except OSError as error:
            Path(draft).unlink(missing_ok=True)
            raise CanonError(f"the store {self.root} cannot be written: {error}") from None
