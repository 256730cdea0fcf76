"""The plan of a run that is done: its suite as it stands now, under the settings it ran with."""

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
    """The plan of a run file; raises CanonError when the suite file is gone or no longer read."""
    called, flags = str(run["called"]), run.get("flags") or {}
    path = Path(run["path"] or "")
    if not path.is_file():
        if called not in packaged_suites():
            raise CanonError(f"the suite file of the run, {path}, is gone")
        path = packaged_suites()[called]
    return make_plan(
        path,
        registry,
        store,
        settings=flags.get("settings") or (),
        limit=flags.get("limit"),
        dtype=flags.get("dtype"),
        called=called,
    )


def check_unchanged(
    run: Mapping[str, Any],
    store: Store,
    identities: Identities,
    sae: SaeSpec,
    data: DataSpec | None,
) -> None:
    """Refuse an SAE that is not, or is not read on, what the run's records say it was."""
    for case in cases_of_run(run):
        record = store.record(case.id or "") if sae.name in case.subject else None
        if record is None:
            continue
        was = record.subject[case.subject.index(sae.name)]["digest"]
        told = record.provenance.get("data") or {}
        on = None if data is None else identities.data(data)
        if was != identities.sae(sae, data) or told.get("digest", on) != on:
            raise CanonError(
                f"'{sae.name}' or its data is no longer what it was in the last run of "
                f"{run['suite']}",
                hint=f"First `saebench-canon run {run['called']}` again.",
            )
        return
