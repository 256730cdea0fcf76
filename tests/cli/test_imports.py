"""What lists, plans and shows does it without the libraries that take seconds to import."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import call


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["plan", "small.toml"],
        ["plan", "small.toml", "--json"],
        ["ls"],
        ["plugins"],
        ["show"],
        ["show", "small", "--json"],
        ["show", "--to", "out.md"],
        ["show", "--to", "out.csv"],
        ["run", "small.toml", "--collect-only", "-q"],
        ["run", "small.toml", "-k", "fidelity and w24-s0"],
    ],
    ids=" ".join,
)
def test_no_slow_import(suite: Path, measured: Path, words: list[str]) -> None:
    done = call(*words, "--store", str(measured), cwd=suite.parent) if words[0] in (
        "plan", "show", "run"
    ) else call(*words, cwd=suite.parent)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "IMPORTED []" in done.stderr


def test_measuring_does_import_torch(suite: Path) -> None:
    done = call("run", "small.toml", "-k", "fidelity and w24-s0", cwd=suite.parent)
    assert done.returncode == 0, done.stdout
    assert "IMPORTED ['torch'" in done.stderr


@pytest.fixture
def measured(suite: Path) -> Path:
    """A store in which one case of the suite is measured."""
    from saebench_canon.bench.measure import Bench
    from saebench_canon.bench.plan import make_plan
    from saebench_canon.bench.results import keep_run
    from saebench_canon.bench.store import Store
    from saebench_canon.plugin.registry import load_registry

    registry, store = load_registry(), Store(suite.parent / "measured")
    plan = make_plan(suite, registry, store)
    keep_run(plan, name="small.toml", flags={})
    bench = Bench(registry, store)
    case = next(case for case in plan.cases if str(case) == "relu-w24-s0 fidelity")
    bench.measure(case)
    return store.root
