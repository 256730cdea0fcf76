"""The plan of an earlier run: its suite as it is now, with the settings of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saebench_canon.bench.identity import Identities
from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.results import cases_of_run
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.registry import Registry
from saebench_canon.suite.load import packaged_suites
from saebench_canon.suite.specs import SaeSpec


def plan_of_run(run: Mapping[str, Any], registry: Registry, store: Store) -> Plan:
    """The plan of a run file; raises CanonError if the suite file is gone or no longer valid."""
    name, flags = str(run["called"]), run.get("flags") or {}
    path = Path(run["path"] or "")
    if not path.is_file():
        if name not in packaged_suites():
            raise CanonError(f"the suite file of the run, {path}, is gone")
        path = packaged_suites()[name]
    return make_plan(
        path,
        registry,
        store,
        settings=flags.get("settings") or (),
        limit=flags.get("limit"),
        dtype=flags.get("dtype"),
        file=name,
    )


def check_unchanged(
    run: Mapping[str, Any],
    store: Store,
    identities: Identities,
    sae: SaeSpec,
    data: DataSpec | None,
) -> None:
    """Raise CanonError for an SAE that has changed since the run, or whose data has."""
    for case in cases_of_run(run):
        record = store.record(case.id or "") if sae.name in case.subject else None
        if record is None:
            continue
        digest = record.subject[case.subject.index(sae.name)]["digest"]
        recorded = record.provenance.get("data") or {}
        data_digest = None if data is None else identities.data(data)
        same_data = recorded.get("digest", data_digest) == data_digest
        if digest != identities.sae(sae, data) or not same_data:
            raise CanonError(
                f"'{sae.name}' or its data has changed since the last run of {run['suite']}",
                hint=f"Run `saebench-canon run {run['called']}` again first.",
            )
        return
