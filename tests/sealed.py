"""Records written by hand: sealed, and under the id of what they say was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from saebench_canon.bench.sealed_record import digest_of, id_of
from saebench_canon.bench.store import Store
from saebench_canon.plugin.record import Record

EMPTY = Record(
    id="", metric="", version=2, settings={}, subject=(), peers=(), seed=0, scores={}, tables={},
    marks=(), provenance={}, identity={"settings": {}, "needs": {}},
)  # fmt: skip


def made_up_id(metric: str, number: int) -> str:
    """The id of a made-up record of a metric, told apart by its seed."""
    found = id_of(replace(EMPTY, metric=metric, seed=number))
    assert found is not None
    return found


def keep_made_up(
    store: Store,
    record: Record,
    tables: Mapping[str, pd.DataFrame] | None = None,
    **scores: float | None,
) -> None:
    """Keep a record under its id with these tables and scores."""
    case_id = id_of(record)
    assert case_id is not None
    paths = {
        name: store.keep_table(case_id, name, lambda path, frame=table: frame.to_parquet(path))  # type: ignore[misc]
        for name, table in (tables or {}).items()
    }
    values = {name: {"value": value, "stderr": None} for name, value in scores.items()}
    digests = store.digests_of(paths)
    store.keep_record(replace(record, id=case_id, tables=paths, scores=values, digests=digests))


def rewrite(store: Path, case_id: str, **changes: Any) -> str:
    """Change a record and seal it again under its new id, in the run files too; returns the id."""
    path = store / "records" / f"{case_id}.json"
    data = {**json.loads(path.read_text()), **changes}
    fields = {key: value for key, value in data.items() if key not in ("format", "digest")}
    data["id"] = id_of(Record.from_json(fields))
    path.unlink()
    (store / "records" / f"{data['id']}.json").write_text(
        json.dumps({**data, "digest": digest_of(data)})
    )
    for run in (store / "runs").glob("*.json"):
        changed = json.loads(run.read_text().replace(case_id, data["id"]))
        run.write_text(json.dumps({**changed, "digest": digest_of(changed)}))
    return str(data["id"])
