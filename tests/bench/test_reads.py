"""How often a plan reads checkpoints: each is claimed, described and digested once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from planted import SUITE, write_sae

from saebench_canon.bench.estimates import estimate
from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.registry import Registry, load_registry
from saebench_canon.saes.checkpoint import CheckpointAdapter
from saebench_canon.saes.parameters import Parameters

SAES = ("w24-s0", "w24-s1", "w48-s0", "w48-s1")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter[str]]:
    """What is asked of each checkpoint's path: `claim`, `open` (its header), `digest` (all)."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("claim", "open", "digest")}

    def note(owner: type, method: str, kind: str, name_of: Any) -> None:
        original = getattr(owner, method)

        def noting(self: Any, *rest: Any) -> Any:
            counts[kind][name_of(self, *rest)] += 1
            return original(self, *rest)

        monkeypatch.setattr(owner, method, noting)

    note(Registry, "claim", "claim", lambda _, path: path.name)
    note(CheckpointAdapter, "parameters", "open", lambda _, path: path.name)
    note(Parameters, "digest", "digest", lambda self: self.W_dec.source.path.parent.name)
    return counts


def test_a_plan_reads_each_checkpoint_once(suite: Path, reads: dict[str, Counter[str]]) -> None:
    registry, store = load_registry(), Store(suite.parent / "store")
    (store.root / "artefacts").mkdir(parents=True)  # so that the estimate identifies SAEs too
    plan = make_plan(suite, registry, store, to_measure=True)
    estimate(plan, registry, speed=1e9)
    assert len(plan.cases) == 32
    assert reads["claim"] == dict.fromkeys(SAES, 1)
    assert reads["digest"] == dict.fromkeys(SAES, 1)
    assert reads["open"] == dict.fromkeys(SAES, 2)  # to describe it, and to digest it


def test_another_plan_reads_anew(suite: Path, reads: dict[str, Counter[str]]) -> None:
    registry, store = load_registry(), Store(suite.parent / "store")
    first = make_plan(suite, registry, store)
    suite.write_text(SUITE.replace('w{width}-s{seed}"\ndata', 'w{width}-s{seed}/"\ndata'))
    second = make_plan(suite, registry, store)
    assert first.ids == second.ids
    assert reads["digest"] == dict.fromkeys(SAES, 2)


def test_what_changes_after_the_plan_is_not_measured_under_its_id(suite: Path) -> None:
    registry, store = load_registry(), Store(suite.parent / "store")
    plan, bench = make_plan(suite, registry, store), Bench(registry, store)
    write_sae(suite.parent / "saes" / "w24-s0", 24, seed=7)
    case = next(case for case in plan.cases if str(case) == "relu-w24-s0 fidelity")
    with pytest.raises(CanonError, match="w24-s0' has changed since the suite was read"):
        bench.measure(case)
    case = next(case for case in plan.cases if str(case) == "relu-w24-s1 fidelity")
    assert bench.measure(case).id in plan.ids
