"""What a run prints: the tables at its end, and why cases failed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from saebench_canon.bench.results import keep_run, rows_of
from saebench_canon.cli.pytest_plugin import SESSION, CaseItem
from saebench_canon.cli.status_line import Note
from saebench_canon.progress import listening
from saebench_canon.suite.gates import broken_gates

BROKEN = pytest.StashKey[list[str]]()
FLAGS = ("fresh", "device", "dtype", "batch_size", "threads", "limit", "settings", "keyword",
         "markexpr")  # fmt: skip


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say what is about to be measured, and write the run file."""
    config = session.config
    state = config.stash.get(SESSION, None)
    if state is None or _is_worker(config):
        return
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and config.option.verbose == 0:
        reporter.showfspath = False
    for path, plan in state.plans.items():
        if not config.option.collectonly:
            flags = {flag: getattr(config.option, flag, None) for flag in FLAGS}
            keep_run(plan, name=state.names[path], flags=flags)
        if reporter is not None and config.option.verbose >= 0:
            kept = sum(plan.state(case_id) == "measured" for case_id in plan.ids)
            reporter.write_line(
                f"{plan.suite.name}: {len(plan.suite.saes)} SAEs, {len(plan.cases)} cases, "
                f"{kept} of them measured already, in {state.store.root}"
            )
            for label in plan.without_subject:
                reporter.write_line(f"note: [[metric]] '{label}' finds nothing to measure here")
            for data in plan.suite.data.values():
                if lacks := data.source.caveat(data, state.store):
                    reporter.write_line(f"note: {lacks}")


def pytest_report_teststatus(report: Any, config: pytest.Config) -> Any:
    """Keep pytest's letters off the terminal where the status line stands."""
    if report.when == "call" and report.passed and config.option.verbose == 0:
        return "passed", "", "PASSED"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Note what this process is doing, for the status line."""
    if not isinstance(item, CaseItem):
        return (yield)
    note = Note(getattr(item.config, "workerinput", {}).get("workerid", "main"))
    note.case(str(item.case))
    with listening(note):
        result = yield
    note.case("")
    return result


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let a gate that does not hold fail the run."""
    state = session.config.stash.get(SESSION, None)
    if state is None or _is_worker(session.config) or session.config.option.collectonly:
        return
    broken = [
        sentence
        for plan in state.plans.values()
        for sentence in broken_gates(
            plan.suite.gates, rows_of(plan.listed(), state.store, state.registry.metrics)
        )
        if plan.suite.gates
    ]
    session.config.stash[BROKEN] = broken
    if broken and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """Print the tables and answers of the suites that ran."""
    state = config.stash.get(SESSION, None)
    shown = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    if state is None or config.option.collectonly or exitstatus not in shown:
        return
    from saebench_canon.questions.ask import answers_of
    from saebench_canon.reports import render
    from saebench_canon.tables.fold import summarise

    for plan in state.plans.values():
        rows = rows_of(plan.listed(), state.store, state.registry.metrics)
        if any(row.status != "missing" for row in rows):
            terminalreporter.write_line("")
            summary = summarise(rows, state.registry.metrics.values())
            answers = answers_of(summary, state.registry.questions, plan.suite.questions)
            terminalreporter.write(render.text(summary, answers))
    for sentence in config.stash.get(BROKEN, []):
        terminalreporter.write_line(sentence, red=True)
