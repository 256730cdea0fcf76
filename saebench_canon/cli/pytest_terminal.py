"""What a run prints: what will be measured, then the tables and answers."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from saebench_canon.bench.plan import Plan
from saebench_canon.bench.results import keep_run, rows_of
from saebench_canon.cli.broken_store import BROKEN_STORE
from saebench_canon.cli.pytest_once import PRINTED
from saebench_canon.cli.pytest_plugin import SESSION, CaseItem, Session
from saebench_canon.cli.status_line import WorkerStatus
from saebench_canon.cli.worker_count import workers_note
from saebench_canon.errors import CanonError, StoreError, from_system, one_line
from saebench_canon.plugin.row import Row
from saebench_canon.progress import listening
from saebench_canon.suite.gates import broken_gates

BROKEN = pytest.StashKey[list[str]]()
ROWS = pytest.StashKey[Sequence[list[Row]]]()
SHOWN = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
FLAGS = ("fresh", "device", "dtype", "batch_size", "threads", "limit", "settings", "keyword",
         "markexpr")  # fmt: skip


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Print what will be measured, and write the run file."""
    config = session.config
    state = config.stash.get(SESSION, None)
    if state is None or _is_worker(config):
        return
    try:
        _begin(config, state)
    except (CanonError, OSError) as error:
        raise pytest.UsageError(_sentence(error)) from None


def _sentence(error: CanonError | OSError) -> str:
    return str(from_system(error) if isinstance(error, OSError) else error)


def _begin(config: pytest.Config, state: Session) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    note = workers_note(config)
    if reporter is not None and config.option.verbose >= 0 and note is not None:
        reporter.write_line(f"note: {note}")
    if reporter is not None and config.option.verbose == 0:
        reporter.showfspath = False
    for path, plan in state.plans.items():
        if not config.option.collectonly:
            flags = {flag: getattr(config.option, flag, None) for flag in FLAGS}
            keep_run(plan, name=state.names[path], flags=flags)
        if reporter is not None and config.option.verbose >= 0:
            measured = sum(plan.state(case_id) == "measured" for case_id in plan.ids)
            reporter.write_line(one_line(
                f"{plan.suite.name}: {len(plan.suite.saes)} SAEs, {len(plan.cases)} cases, "
                f"{measured} of them already measured, in {state.store.root}"
            ))  # fmt: skip
            for sentence in state.store.remarks():
                reporter.write_line(one_line(f"note: {sentence}"))
            if (short := _short_of_memory(config, plan, state)) is not None:
                reporter.write_line(f"note: {short}")
            for label in plan.without_subject:
                reporter.write_line(f"note: [[metric]] '{label}' has nothing to measure here")
            for data in plan.suite.data.values():
                if caveat := data.source.caveat(data, state.store):
                    reporter.write_line(one_line(f"note: {caveat}"))


def _short_of_memory(config: pytest.Config, plan: Plan, state: Session) -> str | None:
    """A sentence if the workers will probably need more memory than there is."""
    from saebench_canon.bench.estimates import estimate
    from saebench_canon.saes.memory_needed import memory, size

    workers = max(len(getattr(config.option, "tx", None) or []), 1)
    needed, limit = estimate(plan, state.registry, speed=1e9).memory, memory().total
    if workers * needed <= limit or all(plan.state(i) == "measured" for i in plan.ids):
        return None
    fit = int(limit // needed)
    advice = f"-n {fit} would fit" if fit > 1 else "one process may already need too much"
    counted = "1 process needs" if workers == 1 else f"{workers} workers need"
    return (
        f"{counted} about {size(workers * needed)} of memory, and {size(limit)} may be used here: "
        f"{advice}"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: Any, sched: Any) -> None:
    """Say of a worker that died what it most often died of."""
    report.longrepr = (
        f"a worker process died while it measured {crashitem}. Was it out of memory? Use fewer "
        "workers (-n), fewer tokens, or --dtype bfloat16; `dmesg` or the job's log says why."
    )


def pytest_report_teststatus(report: Any, config: pytest.Config) -> Any:
    """Suppress pytest's progress letters, which would break the status line."""
    if report.when == "call" and report.passed and config.option.verbose == 0:
        return "passed", "", "PASSED"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Write what this process is doing, for the status line."""
    if not isinstance(item, CaseItem):
        return (yield)
    status = WorkerStatus(getattr(item.config, "workerinput", {}).get("workerid", "main"))
    status.case(str(item.case), item.nodeid.rpartition("::")[2])
    with listening(status):
        result = yield
    status.case("")
    return result


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Read what the store has now; fail the run if a gate does not hold."""
    state = session.config.stash.get(SESSION, None)
    if state is None or _is_worker(session.config) or session.config.option.collectonly:
        return
    if exitstatus not in SHOWN:
        return
    try:
        rows = [
            rows_of(plan.listed(), state.store, state.registry.metrics)
            for plan in state.plans.values()
        ]
    except (StoreError, OSError) as error:
        session.config.stash[BROKEN_STORE].add(_sentence(error))
        return
    session.config.stash[ROWS] = rows
    broken = [
        sentence
        for plan, plan_rows in zip(state.plans.values(), rows, strict=True)
        for sentence in broken_gates(plan.suite.gates, plan_rows)
        if plan.suite.gates
    ]
    session.config.stash[BROKEN] = broken
    if broken and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """Print the tables and answers of the suites that ran."""
    state = config.stash.get(SESSION, None)
    if state is None or config.option.collectonly or exitstatus not in SHOWN:
        return
    _tables(terminalreporter, state, config.stash.get(ROWS, []))
    for sentence in config.stash.get(BROKEN, []):
        terminalreporter.write_line(one_line(sentence), red=True)


def _tables(terminalreporter: Any, state: Session, rows_of_plans: Sequence[list[Row]]) -> None:
    from saebench_canon.bench.results import described, tables_of
    from saebench_canon.questions.ask import answers_of
    from saebench_canon.reports import terminal as render
    from saebench_canon.tables.summarise import summarise

    printed = terminalreporter.config.stash.get(PRINTED, set())
    for plan, measured in zip(state.plans.values(), rows_of_plans, strict=False):
        rows = [
            replace(row, reason=None) if row.id in printed and row.status == "failed" else row
            for row in measured
        ]
        if any(row.status != "missing" for row in rows):
            terminalreporter.write_line("")
            summary = summarise(
                rows, state.registry.metrics.values(), tables=tables_of(plan.store),
                data=described(plan),
            )  # fmt: skip
            answers = answers_of(summary, state.registry.questions, plan.suite.questions)
            quiet = terminalreporter.config.option.verbose < 0
            print_run = render.text_grid if quiet else render.text
            terminalreporter.write(print_run(summary, answers))
