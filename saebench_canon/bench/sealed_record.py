"""A record as its file: sealed with a digest when it is written, checked when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from saebench_canon.bench.shape import Each, Exactly, OneOf, Optional, misfit
from saebench_canon.errors import CanonError
from saebench_canon.plugin.fingerprint import fingerprint
from saebench_canon.plugin.metric import UNITS
from saebench_canon.plugin.record import Record

FORMAT = 2  # of records; those of format 1 had no digest
SAE_FACTS = Exactly({"ref": str, "digest": str})
NUMBER = (float, int, type(None))
SHAPE = {
    "id": str,
    "metric": str,
    "version": int,
    "settings": dict,
    "identity": Exactly(
        {"settings": dict, "needs": dict, "origins": Optional(Each(Each(str)))}
    ),
    "subject": Each(SAE_FACTS),
    "peers": Each(SAE_FACTS),
    "seed": int,
    "scores": Each(
        Exactly({"value": NUMBER, "stderr": NUMBER, "n": Optional(int),
                 "unit": Optional(OneOf(UNITS)), "reason": Optional(str)}), list=False,
    ),
    "tables": Each(str, list=False),
    "digests": Each(Exactly({"bytes": int, "sha256": str}), list=False),
    "marks": Each(Exactly({"kind": OneOf(("unfit", "caveat", "note")), "reason": str})),
    "provenance": dict,
}  # fmt: skip


class OlderFormat(CanonError):
    """A record of a format that had no digest."""


def sealed(record: Record) -> dict[str, Any]:
    """The record as plain data with its format and digest."""
    data = {**record.to_json(), "format": FORMAT}
    return {**data, "digest": digest_of(data)}


def digest_of(data: Mapping[str, Any]) -> str:
    """SHA-256 of a record's data without its digest, keys sorted."""
    content = {key: value for key, value in data.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def opened(data: Mapping[str, Any], case_id: str) -> Record:
    """The record of a case in data read from its file.

    Raises:
        OlderFormat: it has no digest.
        CanonError: the digest is not that of the data, a value is of the wrong type, or the id is
            not the file's or not that of what the record says was measured.
    """
    version = data.get("format", 1)
    if type(version) is not int or version < FORMAT:
        raise OlderFormat("it is of an older format, which had no digest")
    if version > FORMAT:
        raise CanonError(f"it is of format {version}, and this version reads up to {FORMAT}")
    if fault := misfit(data, SHAPE):
        raise CanonError(f"it has another shape than a record: {fault}")
    try:
        intact = data.get("digest") == digest_of(data)
    except ValueError:  # a number that is not finite
        intact = False
    if not intact:
        raise CanonError("its digest is not that of its content")
    if data["id"] != case_id:
        raise CanonError(f"it is the record of another case, {data['id']}")
    fields = {key: value for key, value in data.items() if key not in ("format", "digest")}
    try:
        record = Record.from_json(fields)
    except TypeError as error:
        raise CanonError(f"it has another shape than a record: {error}") from None
    if id_of(record) != case_id:
        raise CanonError("its id is not that of what it says was measured")
    return record


def id_of(record: Record) -> str | None:
    """The id of the case that a record says was measured; None if it contradicts itself."""
    settings = record.identity["settings"]
    for name, value in record.settings.items():
        names_sae = isinstance(settings.get(name), dict) and set(settings[name]) == {"sae"}
        if not names_sae and json.dumps(settings.get(name)) != json.dumps(value):
            return None
    origins = record.identity.get("origins")
    return fingerprint(
        {
            **({} if origins is None else {"origins": origins}),
            "metric": record.metric,
            "version": record.version,
            "settings": settings,
            "seed": record.seed,
            "subject": [sae["digest"] for sae in record.subject],
            "peers": sorted(sae["digest"] for sae in record.peers),
            "needs": record.identity["needs"],
        }
    )
