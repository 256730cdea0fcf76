"""Where records, artefacts and runs are kept: plain files, written completely or not at all.

records/ID.json              one measured case
errors/ID.json               one failed case, until it is measured
tables/ID/NAME.parquet       per-latent and per-step tables of a record
artefacts/FINGERPRINT/       inputs and trained SAEs, with a manifest of their files' digests
suites/run-DIGEST.toml       the suite of SAEs that were named on the command line
runs/TIME-SUITE-DIGEST.json  one run: its cases by name, versions, hardware, flags
claims/FINGERPRINT.lock      which process makes what; the system releases it with its owner
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from saebench_canon.bench.drafts import draft_of, draft_of_artefact, sweep
from saebench_canon.bench.durable import replace_durably, sync_file, sync_tree
from saebench_canon.bench.folders import files_in
from saebench_canon.bench.locks import check_locks
from saebench_canon.bench.manifest import is_intact, write_manifest
from saebench_canon.bench.sealed_record import OlderFormat, digest_of, opened, sealed
from saebench_canon.bench.shape import Optional, misfit
from saebench_canon.bench.store_faults import ABSENT, fault_of, guarding
from saebench_canon.errors import CanonError, StoreError
from saebench_canon.plugin.record import Record
from saebench_canon.saes.weights.regular_file import NotRegular, read_regular

DEFAULT = Path(".canon")
FEW = 3  # damaged records that are told one by one
ERROR = {"case": str, "metric": Optional(str), "error": str, "traceback": Optional(str)}


class Store:
    """A folder of records, artefacts and runs that several processes may share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._prepared = False
        self._intact: set[str] = set()  # artefacts whose files this process has checked
        self._notices: list[str] = []
        self._unusable: dict[str, CanonError] = {}  # records that are damaged or of an older format

    def prepare(self) -> None:
        """Make the folder, check that it can be written and locked, and delete old drafts."""
        probe = draft_of(self.root / "probe")
        with self.writing():
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                probe.write_bytes(b"probe")
                sync_file(probe)
                with guarding(self.root, "locked"):
                    check_locks(probe)
                now = probe.stat().st_mtime_ns
            finally:
                probe.unlink(missing_ok=True)
            (self.root / "claims").mkdir(exist_ok=True)
        sweep(self.root, now)
        self._prepared = True

    def writing(self) -> AbstractContextManager[None]:
        """Raise StoreError for what the system refuses inside the block, which writes files."""
        return guarding(self.root, "written")

    def reading(self) -> AbstractContextManager[None]:
        """Raise StoreError for what the system refuses inside the block, which reads files."""
        return guarding(self.root, "read")

    def fault(self, error: BaseException) -> StoreError | None:
        """The StoreError of an error at one of the store's files; None for any other error."""
        return fault_of(error, self.root)

    def record(self, case_id: str) -> Record | None:
        """The record of a case; None if it is not measured, or if its record cannot be used.

        A record is used only if it is complete, unchanged and that of the case, and so are its
        tables. `remarks` tells those that are not.
        """
        path = self.root / "records" / f"{case_id}.json"
        with self.reading():
            if case_id in self._unusable or not path.exists():
                return None
            try:
                record = opened(self._record_in(path), case_id)
                for name, table in record.tables.items():
                    self._check_table(name, self.root / table, record.digests.get(name))
            except StoreError:
                raise
            except CanonError as error:
                self._unusable[case_id] = error
                return None
        return record

    def _record_in(self, path: Path) -> dict[str, Any]:
        try:
            return self._read(path)
        except NotRegular as error:
            raise CanonError(str(error)) from error
        except (*ABSENT, ValueError, RecursionError) as error:
            raise CanonError("it is not JSON, or was cut off") from error

    def _check_table(self, name: str, path: Path, expected: Mapping[str, Any] | None) -> None:
        """Raise CanonError for a table that is gone or changed."""
        if not path.resolve().is_relative_to(self.root.resolve()) or not path.is_file():
            raise CanonError(f"its table '{name}' is gone")
        if expected is None or dict(expected) != _digest(path, path.stat().st_mtime_ns):
            raise CanonError(f"its table '{name}' has changed")

    def digests_of(self, tables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Size and SHA-256 of each table of a record."""
        paths = {name: self.root / path for name, path in tables.items()}
        with self.reading():
            return {name: _digest(path, path.stat().st_mtime_ns) for name, path in paths.items()}

    def notice(self, sentence: str) -> None:
        """Add a sentence to `remarks`."""
        if sentence not in self._notices:
            self._notices.append(sentence)

    def remarks(self) -> list[str]:
        """Sentences on what was met and cannot be used: damaged records and runs, older records."""
        older = [case for case, error in self._unusable.items() if isinstance(error, OlderFormat)]
        sentences = [
            f"the record {case} is damaged and counts as not measured: {error}"
            for case, error in self._unusable.items()
            if not isinstance(error, OlderFormat)
        ]
        if len(sentences) > FEW:
            more = len(sentences) - FEW
            sentences = [*sentences[:FEW], f"{more} more records are damaged"]
        if older:
            count = "1 record is" if len(older) == 1 else f"{len(older)} records are"
            sentences.append(f"{count} of an older format and not used; nothing is deleted")
        sentences += self._notices
        return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences]

    def measured(self, case_id: str) -> Record | None:
        """The record of a case whose last try did not fail."""
        return None if self.error(case_id) is not None else self.record(case_id)

    def records(self) -> Iterator[Record]:
        """Every record, in the order of their ids."""
        with self.reading():
            paths = files_in(self.root / "records", ".json")
        for path in paths:
            if (record := self.record(path.stem)) is not None:
                yield record

    def error(self, case_id: str) -> dict[str, Any] | None:
        """Why a case failed when it was last tried."""
        path = self.root / "errors" / f"{case_id}.json"
        try:
            error = self._read(path)
            fault = misfit(error, ERROR)
        except ABSENT:
            return None
        except (ValueError, RecursionError) as damage:
            fault = str(damage)
        if fault is None:
            return error
        self.notice(f"the error file {path} is damaged and left out: {fault}")
        return None

    def keep_record(self, record: Record) -> None:
        """Keep the record of a case, and delete its error."""
        self._unusable.pop(record.id, None)
        self._write(self.root / "records" / f"{record.id}.json", sealed(record))
        with self.writing():
            (self.root / "errors" / f"{record.id}.json").unlink(missing_ok=True)

    def keep_error(self, case_id: str, error: dict[str, Any]) -> None:
        """Keep the error of a failed case."""
        self._write(self.root / "errors" / f"{case_id}.json", error)

    def keep_table(self, case_id: str, name: str, write: Callable[[Path], None]) -> str:
        """Keep a record's table; returns its path within the store."""
        path = self.root / "tables" / case_id / f"{name}.parquet"
        with self.writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            with _draft(path) as draft:
                write(draft)
                sync_file(draft)
                replace_durably(draft, path)
        return str(path.relative_to(self.root))

    def keep_suite(self, name: str, text: str) -> Path:
        """Keep a suite that the program has written; returns its path."""
        path = self.root / "suites" / name
        with self.reading(), suppress(*ABSENT, ValueError):
            if read_regular(path) == text:  # of an earlier run, or the controller
                return path
        self._write_text(path, text)
        return path

    def keep_run(self, name: str, run: dict[str, Any]) -> None:
        """Keep a run file, sealed with a digest."""
        self._write(self.root / "runs" / f"{name}.json", {**run, "digest": digest_of(run)})

    def runs(self) -> list[Path]:
        """The run files, oldest first."""
        with self.reading():
            return files_in(self.root / "runs", ".json")

    def artefact(self, fingerprint: str, make: Callable[[Path], None], *, title: str) -> Path:
        """The folder of an artefact; one process makes it while others wait.

        It is computed if it is missing, or if a file differs from its manifest.
        """
        folder = self.root / "artefacts" / fingerprint
        if self._has_intact(folder):
            return folder
        with self.claim(fingerprint, title=title):
            if self._has_intact(folder):
                return folder
            self.drop_artefact(fingerprint)
            draft = draft_of_artefact(folder)
            with self.writing():
                shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
                draft.mkdir(parents=True)
            try:
                make(draft)
                with self.writing():
                    write_manifest(draft, fingerprint)
                    sync_tree(draft)
                    replace_durably(draft, folder)
            except BaseException as error:
                shutil.rmtree(draft, ignore_errors=True)
                fault = fault_of(error, self.root, making=True)
                if fault is not None and fault is not error:
                    raise fault from error
                raise
            self._intact.add(fingerprint)
        return folder

    def _has_intact(self, folder: Path) -> bool:
        """Whether an artefact is there, the one of this name, with the files of its manifest."""
        if not folder.is_dir():
            return False
        with self.reading():
            if folder.name not in self._intact and is_intact(folder):
                self._intact.add(folder.name)
        return folder.name in self._intact

    def drop_artefact(self, fingerprint: str) -> None:
        """Delete a damaged artefact."""
        self._intact.discard(fingerprint)
        shutil.rmtree(self.root / "artefacts" / fingerprint, ignore_errors=True)

    @contextmanager
    def claim(self, fingerprint: str, *, title: str) -> Iterator[None]:
        """Hold the lock on something to be made; waits while another process holds it."""
        from saebench_canon.progress import waiting

        if not self._prepared:
            self.prepare()
        lock = FileLock(self.root / "claims" / f"{fingerprint}.lock")
        with guarding(self.root, "locked"):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                with waiting(title):
                    lock.acquire()
        try:
            yield
        finally:
            with suppress(OSError):  # the system releases it at the latest when the process ends
                lock.release()

    def remember(self, key: str, make: Callable[[], str]) -> str:
        """An answer that is slow to compute, kept under its key."""
        from saebench_canon.plugin.fingerprint import fingerprint

        path = self.root / "answers" / f"{fingerprint(key)}.json"
        stored = self._load(path)
        if stored is not None and stored.get("key") == key and "answer" in stored:
            return str(stored["answer"])
        answer = make()
        if self.root.is_dir():  # `plan` and `show` make no store, and may read one of another user
            with suppress(CanonError):
                self._write(path, {"key": key, "answer": answer})
        return answer

    def _load(self, path: Path) -> dict[str, Any] | None:
        try:
            return self._read(path)
        except (*ABSENT, ValueError, RecursionError):
            return None

    def _read(self, path: Path) -> dict[str, Any]:
        """The JSON object in a file; ValueError for anything else that stands there."""
        with self.reading():
            data = json.loads(read_regular(path))
        if not isinstance(data, dict):
            raise ValueError("it is not a JSON object")
        return data

    def _write(self, path: Path, data: dict[str, Any]) -> None:
        self._write_text(path, json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n")

    def _write_text(self, path: Path, text: str) -> None:
        with self.writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            with _draft(path) as draft:
                with draft.open("w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                replace_durably(draft, path)


@cache
def _digest(path: Path, modified: int) -> dict[str, Any]:
    """Size and SHA-256 of a file, read once by a process unless it changes."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A draft of a file, which is deleted if the block fails."""
    draft = draft_of(path)
    try:
        yield draft
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
