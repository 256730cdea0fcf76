"""What a run measured: its cases with the store's records, as rows."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.bench.plan import Plan
from saebench_canon.bench.provenance import git_state, hardware, versions
from saebench_canon.bench.sealed_record import digest_of
from saebench_canon.bench.shape import Each, OneOf, Optional, misfit
from saebench_canon.bench.store import Store
from saebench_canon.bench.store_faults import ABSENT
from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.fingerprint import fingerprint
from saebench_canon.plugin.metric import Mark, Metric
from saebench_canon.plugin.question import Margins, Question
from saebench_canon.plugin.row import ListedCase, Row, Status
from saebench_canon.saes.weights.regular_file import read_regular

if TYPE_CHECKING:
    import pandas as pd

    from saebench_canon.plugin.report import Tables


STAMP = re.compile(r"\d{8}T\d{15}")
AXIS = (str, int, float, bool)
CASE = {
    "id": Optional(str), "suite": Optional(str), "label": str, "title": Optional(str),
    "metric": str, "version": Optional(int), "of": OneOf(("sae", "pair", "group")), "over": str,
    "subject": Each(str), "axes": dict, "members": Each(Each((*AXIS, dict), list=False)),
    "data": Optional(str), "seed": Optional(int), "settings": dict,
    "references": Optional(Each({"value": (int, float), "source": str}, list=False)),
}  # fmt: skip
RUN = {
    "suite": str, "called": str, "path": Optional(str), "cases": Each(CASE),
    "data": Optional(Each(str, list=False)),
    "questions": Optional(Each(Each((int, float), list=False), list=False)),
    "flags": Optional(
        {"settings": Optional(Each(str)), "limit": Optional(int), "dtype": Optional(str),
         "batch_size": Optional(int)}
    ),
}  # fmt: skip


def keep_run(plan: Plan, *, name: str, flags: Mapping[str, Any]) -> None:
    """Write the run file of a plan, which lists its cases by name."""
    packaged = plan.suite.path is None or plan.suite.path.resolve().is_relative_to(
        Path(__file__).parents[1]
    )
    stamp = _stamp_after(plan.store.runs())
    plan.store.keep_run(
        f"{stamp}-{plan.suite.name}-{fingerprint(plan.ids)[:8]}",
        {
            "suite": plan.suite.name,
            "suite_version": plan.suite.version,
            "called": name,
            "path": None if plan.suite.path is None else str(plan.suite.path.resolve()),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "data": described(plan),
            "cases": [case.to_json() for case in plan.listed()],
            "questions": {name: dict(margins) for name, margins in plan.suite.questions.items()},
            "versions": versions(),
            "hardware": hardware(),
            "git": git_state(None if packaged else plan.suite.path),
            "flags": dict(flags),
        },
    )


def described(plan: Plan) -> dict[str, str]:
    """What each data table of a plan gives, in words."""
    return {name: data.describe() for name, data in plan.suite.data.items()}


def _stamp_after(runs: Sequence[Path]) -> str:
    """The time, as a run file's name begins; later than earlier runs if the clock was set back."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f"{time.time_ns() % 10**9:09d}"
    earlier = [name for path in runs if STAMP.fullmatch(name := path.name.partition("-")[0])]
    if not earlier or stamp > max(earlier):
        return stamp
    number = int(max(earlier).replace("T", "")) + 1
    return f"{number // 10**15:08d}T{number % 10**15:015d}"


def last_run(store: Store, suite: str | None) -> dict[str, Any]:
    """The last run of a suite (by its name or its file), or of any suite."""
    known, damaged = set(), False
    for path in reversed(store.runs()):
        run = _run_in(path, store)
        if run is None:
            damaged = True
            continue
        names = {run["suite"], run["called"], Path(run["called"]).name}
        if suite is None or suite in names or os.path.realpath(suite) == run["path"]:
            return run
        known.add(run["suite"])
    hint = store.remarks()[-1] if damaged else None  # on the last one that was read
    if suite is None:
        again = "Run `saebench-canon run SUITE` first."
        raise CanonError(f"there is no run in {store.root}", hint=hint or again)
    raise CanonError(f"no run of '{suite}' in {store.root}", hint=hint or nearest(suite, known))


def _run_in(path: Path, store: Store) -> dict[str, Any] | None:
    """The run in a run file; None, and a remark of the store, if the file is damaged."""
    try:
        with store.reading():
            run: dict[str, Any] = json.loads(read_regular(path))
        fault = misfit(run, RUN)
        if fault is None and run.get("digest") != digest_of(run):
            fault = "its digest is not that of its content"
        if fault is None:
            cases_of_run(run)
    except (*ABSENT, ValueError, TypeError, RecursionError) as error:
        fault = str(error)
    if fault is None:
        return run
    store.notice(f"the run file {path} is damaged and left out: {fault}")
    return None


def questions_of(run: Mapping[str, Any], questions: Mapping[str, Question]) -> dict[str, Margins]:
    """The questions of a run with its margins; for an older run, those that its metrics answer."""
    if isinstance(margins := run.get("questions"), dict):
        return margins
    metrics = {case.metric for case in cases_of_run(run)}
    return {name: question.defaults for name, question in questions.items()
            if question.is_for(metrics)}  # fmt: skip


def cases_of_run(run: Mapping[str, Any]) -> list[ListedCase]:
    """The cases that a run file lists."""
    return [ListedCase.from_json(case) for case in run["cases"]]


def rows_of(cases: Sequence[ListedCase], store: Store, metrics: Mapping[str, Metric]) -> list[Row]:
    """One row for each score of each case, from the store."""
    return [row for case in cases for row in _rows(case, store, metrics)]


def tables_of(store: Store) -> Tables:
    """A function from a case's id and a table's name to the table; None if there is none."""

    def table(case_id: str, name: str) -> pd.DataFrame | None:
        import pandas as pd

        record = store.measured(case_id)
        path = None if record is None else record.tables.get(name)
        if path is None:
            return None
        with store.reading():
            return pd.read_parquet(store.root / path)

    return table


def _rows(case: ListedCase, store: Store, metrics: Mapping[str, Metric]) -> Iterator[Row]:
    record, error = store.record(case.id or ""), store.error(case.id or "")
    if record is None or error is not None:
        status: Status = "missing" if error is None else "failed"
        reason = None if error is None else str(error["error"])
        scores = metrics[case.metric].scores if case.metric in metrics else ()
        for score in scores:
            yield Row.of_case(case, score=score.name, status=status, reason=reason)
        return
    marks = tuple(Mark(**mark) for mark in record.marks)  # type: ignore[arg-type]
    for name, result in record.scores.items():
        status = "undefined" if result["value"] is None else "measured"
        yield Row.of_case(case, score=name, status=status, marks=marks, **result)
