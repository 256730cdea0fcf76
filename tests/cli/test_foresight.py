"""What is cheap to know is said before anything is computed; what takes long says how far it is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from planted import write_sae

from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.cli import pytest_terminal
from saebench_canon.cli.main import main
from saebench_canon.cli.status_line import StatusLine
from saebench_canon.errors import CanonError
from saebench_canon.plugin.registry import load_registry
from saebench_canon.saes import memory_needed
from saebench_canon.saes.memory_needed import Memory, memory

GIB = 2**30
OF_A_MODEL = """
[suite]
name = "s"
[data.d]
model = "packaged:tiny-lm"
hook = "{hook}"
text = "packaged:python-docs"
[[sae]]
name = "a"
uri = "sae"
data = "d"
[[metric]]
name = "fidelity"
"""


@pytest.mark.parametrize(
    ("hook", "refused"),
    [("blocks.1.hook_resid_pre", True), ("blocks.1.hook_mlp_out", True), ("model.layers.1", True),
     ("blocks.1.attn.hook_z", False), ("model.layers.1.mlp.up_proj", False)],
)  # fmt: skip
def test_an_sae_of_another_width_than_the_model_is_refused_before_activations(
    tmp_path: Path, hook: str, *, refused: bool
) -> None:
    write_sae(tmp_path / "sae", 8, d=16)
    (tmp_path / "suite.toml").write_text(OF_A_MODEL.format(hook=hook))
    registry, store = load_registry(), Store(tmp_path / "store")
    if not refused:  # such a value may have another width than the stream
        assert make_plan(tmp_path / "suite.toml", registry, store).cases
        return
    with pytest.raises(CanonError, match=r"has d = 16, and the activations of 'd' \(.*\) have"):
        make_plan(tmp_path / "suite.toml", registry, store)


def group(folder: Path, limit: int | str, used: int, cached: int = 0, *, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        2: ("memory.max", "memory.current", "inactive_file"),
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }
    limit_file, used_file, cache = names[version]
    (folder / limit_file).write_text(f"{limit}\n")
    (folder / used_file).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{cache} {cached}\n")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 GiB, of which 32 are free."""
    told = SimpleNamespace(total=64 * GIB, available=32 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: told)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("version", [1, 2])
def test_the_least_limit_of_the_groups_around_the_process_counts(
    tmp_path: Path, version: int
) -> None:
    root = tmp_path / "cgroup"
    base = root if version == 2 else root / "memory"
    line = "0::/slurm/job/step" if version == 2 else "3:cpu,memory:/slurm/job/step"
    (tmp_path / "proc").write_text(f"1:name=systemd:/\n{line}\n")
    group(base / "slurm" / "job" / "step", "max", 2 * GIB, version=version)
    group(base / "slurm" / "job", 8 * GIB, 5 * GIB, GIB, version=version)
    group(base / "slurm", 16 * GIB, 15 * GIB, version=version)
    found = memory(tmp_path / "proc", root)
    assert found == Memory(total=8 * GIB, free=GIB)  # 16 − 15 in the outer group


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("content", [None, "", "nonsense", "0::/nowhere\n", "5:cpu:/x\n"])
def test_without_groups_it_is_the_machines(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "proc").write_text(content)
    assert memory(tmp_path / "proc", tmp_path) == Memory(64 * GIB, 32 * GIB)


def test_workers_that_need_more_than_there_is_are_warned(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = load_registry()
    plan = make_plan(suite, registry, Store(Path(".canon")))
    state: Any = SimpleNamespace(registry=registry)

    def said(workers: int, total: int) -> str | None:
        monkeypatch.setattr(memory_needed, "memory", lambda: Memory(total, total))
        config: Any = SimpleNamespace(option=SimpleNamespace(tx=["popen"] * workers))
        return pytest_terminal._short_of_memory(config, plan, state)

    assert said(1, 64 * GIB) is None
    sentence = said(64, 8 * GIB)
    assert sentence is not None
    assert sentence.startswith("64 workers need about ")
    assert "and 8.0 GiB may be used here: -n " in sentence
    assert "one process may already need too much" in (said(1, GIB // 4) or "")


def test_an_unknown_l0_is_told(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(suite)]) == 0
    printed = capsys.readouterr().out
    assert (
        "; the L0 of relu-w24-s0, relu-w24-s1 and 2 more is not known and taken as d/16" in printed
    )


def test_a_worker_that_dies_asks_whether_it_was_out_of_memory(suite: Path) -> None:
    Path("dies.py").write_text("""
import os
from saebench_canon import hookimpl

@hookimpl(tryfirst=True)
def canon_measure(case, bench):
    os._exit(9)
""")
    words = ["run", str(suite), "--plugin", "dies.py", "-n", "1", "-k", "fidelity", "-x"]
    done = subprocess.run(
        [sys.executable, "-m", "saebench_canon", *words], capture_output=True, text=True
    )
    assert "a worker process died while it measured" in done.stdout
    assert "Was it out of memory?" in done.stdout


def status_line(folder: Path, *statuses: dict[str, Any], seconds: dict[str, list[float]],
                remaining: dict[str, int]) -> StatusLine:  # fmt: skip
    line = StatusLine(StringIO(), folder)
    line._workers = max(len(statuses), 1)
    line._remaining = Counter(remaining)
    line._seconds.update(seconds)
    line._started = time.monotonic()
    for number, status in enumerate(statuses):
        empty = {"work": "", "work_began": 0.0, "done": 0, "total": 0}
        (folder / f"{number}.json").write_text(json.dumps(empty | status))
    return line


def running(kind: str, elapsed: float, *, work: float = 0, done: int = 0, total: int = 0) -> Any:
    now = time.time()
    return {"case": f"s {kind}", "kind": kind, "began": now - elapsed, "work": "encoding",
            "work_began": now - work, "done": done, "total": total}  # fmt: skip


@pytest.mark.parametrize("elapsed", [0, 30, 60, 90])
def test_the_time_left_falls_while_a_case_runs(tmp_path: Path, elapsed: float) -> None:
    line = status_line(tmp_path, running("a", elapsed), seconds={"a": [100.0]}, remaining={"a": 2})
    assert line._seconds_remaining() == pytest.approx(200 - elapsed, abs=1)


def test_a_cases_own_progress_decides_where_it_takes_longer(tmp_path: Path) -> None:
    """A tenth is done after 60 s, so 540 s are left, and the next case will take 600."""
    case = running("a", 60, work=60, done=10, total=100)
    line = status_line(tmp_path, case, seconds={"a": [20.0]}, remaining={"a": 2})
    assert line._seconds_remaining() == pytest.approx(540 + 600, abs=5)


def test_a_case_that_takes_longer_than_others_makes_those_to_come_longer(tmp_path: Path) -> None:
    line = status_line(tmp_path, running("a", 90), seconds={"a": [20.0]}, remaining={"a": 3})
    assert line._seconds_remaining() == pytest.approx(2 * 90, abs=1)


def test_workers_share_what_is_left(tmp_path: Path) -> None:
    cases = [running("a", 5), running("b", 0)]
    line = status_line(tmp_path, *cases, seconds={"a": [10.0]}, remaining={"a": 3, "b": 1})
    assert line._seconds_remaining() == pytest.approx((5 + 10 + 2 * 10) / 2, abs=1)


def test_nothing_is_said_before_a_case_has_ended(tmp_path: Path) -> None:
    line = status_line(tmp_path, running("a", 5), seconds={}, remaining={"a": 3})
    assert line._seconds_remaining() is None
