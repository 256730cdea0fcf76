"""What a run measured: its cases joined with the store's records, as rows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.bench.plan import Plan
from saebench_canon.bench.provenance import git_state, hardware, versions
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.fingerprint import fingerprint
from saebench_canon.plugin.metric import Mark, Metric
from saebench_canon.plugin.published import Published
from saebench_canon.plugin.question import Margins, Question
from saebench_canon.plugin.row import Row

if TYPE_CHECKING:
    import pandas as pd

    from saebench_canon.plugin.report import Tables


def keep_run(plan: Plan, *, name: str, flags: Mapping[str, Any]) -> None:
    """Write the run file of a plan: the names under which this suite knows its cases."""
    cases = plan.listed()
    own = plan.suite.path is None or plan.suite.path.resolve().is_relative_to(
        Path(__file__).parents[1]
    )
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f"{time.time_ns() % 10**9:09d}"
    plan.store.keep_run(
        f"{stamp}-{plan.suite.name}-{fingerprint(plan.ids)[:8]}",
        {
            "suite": plan.suite.name,
            "suite_version": plan.suite.version,
            "called": name,
            "path": None if plan.suite.path is None else str(plan.suite.path.resolve()),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "cases": cases,
            "questions": {name: dict(margins) for name, margins in plan.suite.questions.items()},
            "versions": versions(),
            "hardware": hardware(),
            "git": git_state(None if own else plan.suite.path),
            "flags": dict(flags),
        },
    )


def last_run(store: Store, suite: str | None) -> dict[str, Any]:
    """The last run of a suite (by its name, or as it was called), or of any."""
    known = set()
    for path in reversed(store.runs()):
        try:
            run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, OSError):
            continue
        if not isinstance(run, dict) or not {"suite", "called", "path", "cases"} <= run.keys():
            continue  # not a run file of ours
        names = {run["suite"], run["called"], Path(run["called"]).name}
        if suite is None or suite in names or str(Path(suite).resolve()) == run["path"]:
            return run
        known.add(run["suite"])
    if suite is None:
        raise CanonError(
            f"there is no run in {store.root}", hint="First `saebench-canon run SUITE`."
        )
    raise CanonError(f"no run of '{suite}' in {store.root}", hint=nearest(suite, known))


def asked_of(run: Mapping[str, Any], questions: Mapping[str, Question]) -> dict[str, Margins]:
    """The questions that a run was asked and its margins; of an older run those of its metrics."""
    if isinstance(asked := run.get("questions"), dict):
        return asked
    metrics = {case["metric"] for case in run["cases"]}
    return {name: question.defaults for name, question in questions.items()
            if question.is_for(metrics)}  # fmt: skip


def rows_of(
    cases: Sequence[Mapping[str, Any]], store: Store, metrics: Mapping[str, Metric]
) -> list[Row]:
    """One row a score of each case, as the store has it now."""
    return [row for case in cases for row in _rows(case, store, metrics)]


def tables_of(store: Store) -> Tables:
    """The tables of measured cases, by a case's id and the table's name."""

    def table(case_id: str, name: str) -> pd.DataFrame | None:
        import pandas as pd

        record = store.measured(case_id)
        kept = None if record is None else record.tables.get(name)
        return None if kept is None else pd.read_parquet(store.root / kept)

    return table


def _rows(case: Mapping[str, Any], store: Store, metrics: Mapping[str, Metric]) -> Iterator[Row]:
    common: dict[str, Any] = {
        "label": case["label"], "metric": case["metric"], "subject": tuple(case["subject"]),
        "suite": case["suite"], "axes": case["axes"], "seed": case["seed"],
        "settings": case["settings"], "id": case["id"], "of": case["of"], "over": case["over"],
        "members": tuple(case["members"]), "data": case["data"],
    }  # fmt: skip
    told = {name: Published(**each) for name, each in case.get("references", {}).items()}
    record, error = store.record(case["id"]), store.error(case["id"])
    if record is None or error is not None:
        status: Any = "missing" if error is None else "failed"
        reason = None if error is None else str(error["error"])
        declared = metrics[case["metric"]].scores if case["metric"] in metrics else ()
        for score in declared:
            yield Row(**common, score=score.name, status=status, reason=reason,
                      reference=told.get(score.name))  # fmt: skip
        return
    marks = tuple(Mark(kind=mark["kind"], reason=mark["reason"]) for mark in record.marks)  # type: ignore[arg-type]
    for name, kept in record.scores.items():
        yield Row(
            **common,
            score=name,
            status="undefined" if kept["value"] is None else "measured",
            value=kept["value"],
            stderr=kept["stderr"],
            n=kept["n"],
            unit=kept["unit"],
            reason=kept.get("reason"),
            marks=marks,
            reference=told.get(name),
        )
