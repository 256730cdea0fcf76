"""A clock that is set back: the last run stays the last one, and no time is negative."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.results import keep_run, last_run, rows_of
from saebench_canon.bench.store import Store
from saebench_canon.plugin.registry import load_registry

REGISTRY = load_registry()
YEAR = 365 * 24 * 3600
Clock = Callable[[float], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the clock of the machine to so many seconds after now."""
    real_time, real_ns, real_gmtime = time.time, time.time_ns, time.gmtime

    def set_clock(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real_time() + seconds)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + round(seconds * 10**9))
        monkeypatch.setattr(
            time, "gmtime", lambda at=None: real_gmtime(time.time() if at is None else at)
        )

    return set_clock


@pytest.fixture
def plan(suite: Path) -> Plan:
    suite.write_text(suite.read_text().partition('[[metric]]\nname = "stitching"')[0])
    return make_plan(suite, REGISTRY, Store(suite.parent / "store"))


@pytest.mark.parametrize(
    "offsets",
    [
        (0, -YEAR, -2 * YEAR),
        (0, -1e-3, -2e-3),
        (-YEAR, 0, -YEAR),
        (10 * YEAR, 0, 10 * YEAR - 1e-3),
        (0, 0, 0),
    ],
)
def test_the_last_run_is_the_one_that_was_started_last(
    plan: Plan, clock: Clock, offsets: tuple[float, ...]
) -> None:
    for number, offset in enumerate(offsets):
        clock(offset)
        keep_run(plan, name=f"call {number}", flags={})
        assert last_run(plan.store, None)["called"] == f"call {number}"
    assert len(plan.store.runs()) == len(offsets)


def test_run_files_of_other_names_do_not_disturb_the_order(plan: Plan, clock: Clock) -> None:
    runs = plan.store.root / "runs"
    runs.mkdir(parents=True)
    for name in ("zzz.json", "99999999T-x.json", "-.json"):
        (runs / name).write_text("{}")
    for number, offset in enumerate((0, -YEAR)):
        clock(offset)
        keep_run(plan, name=f"call {number}", flags={})
        assert last_run(plan.store, None)["called"] == f"call {number}"


@pytest.mark.parametrize("second", [59, 58])
def test_the_end_of_a_second_keeps_the_order(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, second: int
) -> None:
    base = 1_700_000_000 // 60 * 60 + second
    for number, nanoseconds in enumerate((999_999_998, 999_999_999, 999_999_999, 5)):
        seconds = base if number < 3 else base - 1  # the last call reads the clock set back
        monkeypatch.setattr(time, "time_ns", lambda at=seconds, ns=nanoseconds: at * 10**9 + ns)
        gmtime = time.struct_time((2023, 11, 14, 22, 13, second, 1, 318, 0))
        monkeypatch.setattr(time, "gmtime", lambda at=None, value=gmtime: value)
        keep_run(plan, name=f"call {number}", flags={})
        assert last_run(plan.store, None)["called"] == f"call {number}"
    assert len(plan.store.runs()) == 4


def test_a_case_measured_while_the_clock_is_set_back_took_no_negative_time(
    plan: Plan, clock: Clock
) -> None:
    bench, offset = Bench(REGISTRY, plan.store), [0]
    measure = bench.compute

    def set_back(case: object) -> object:
        offset[0] -= YEAR
        clock(offset[0])
        return measure(case)  # type: ignore[arg-type]

    bench.compute = set_back  # type: ignore[method-assign,assignment]
    for case in plan.cases:
        record = bench.measure(case)
        assert 0 <= record.provenance["seconds"] < 600
        assert 0 <= record.provenance["seconds_inputs"] < 600


def test_a_case_measured_again_before_its_first_time_has_the_second_record(
    plan: Plan, clock: Clock
) -> None:
    bench, (case, *_) = Bench(REGISTRY, plan.store), plan.cases
    first = bench.measure(case)
    plan.store.keep_error(first.id, {"case": str(case), "metric": "fidelity", "error": "it broke",
                                     "traceback": ""})  # fmt: skip
    clock(-YEAR)
    assert plan.store.measured(first.id) is None
    bench.measure(case)
    assert plan.store.measured(first.id) is not None
    rows = rows_of([one for one in plan.listed() if one.id == first.id], plan.store,
                   REGISTRY.metrics)  # fmt: skip
    assert {row.status for row in rows} <= {"measured", "undefined"}
