"""`run -n`: as many workers as can be of use, whatever number is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import SUITE

from saebench_canon.cli import worker_count
from saebench_canon.cli.run import _hermetic, pytest_arguments


@pytest.fixture
def four(suite: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of four cases that take no time, on a machine with few processors."""
    suite.write_text(SUITE.partition('[[metric]]\nname = "stitching"')[0])
    monkeypatch.chdir(suite.parent)
    monkeypatch.setattr(worker_count, "EACH", 1)
    return suite


def run(pytester: pytest.Pytester, *words: str) -> str:
    with _hermetic():
        result = pytester.runpytest_inprocess(*pytest_arguments(["small.toml", *words]))
    return result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("asked", ["999999", str(10**12)])
def test_few_processors_bound_the_workers_and_the_run_says_so(
    four: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(worker_count, "_processors", lambda: 2)
    told = run(pytester, "-n", asked)
    assert "2/2 workers" in told
    assert f"note: 2 workers instead of {asked}, 1 for each of this machine's processors" in told
    assert "4 passed" in told


def test_cases_bound_the_workers_without_a_word(
    four: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_count, "_processors", lambda: 64)
    four.write_text(four.read_text().replace("seed = [0, 1]", "seed = [0]"))
    for asked in ("40", "999999"):
        told = run(pytester, "-n", asked, "--fresh")
        assert "2/2 workers" in told
        assert "instead of" not in told
        assert "2 passed" in told


def test_other_ways_to_ask(
    four: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_count, "_processors", lambda: 1)
    assert "1/1 worker" in run(pytester, "--tx", "99999*popen", "--dist", "load")
    told = run(pytester, "-n", "5000", "--maxprocesses", "1")
    assert "1/1 worker" in told
    assert "instead of" not in told
    assert "-n must be at least 0, got -2" in run(pytester, "-n", "-2")
    assert "4 passed" in run(pytester, "-n", "0")


@pytest.mark.parametrize("asked", ["3", "999999", str(10**12)])
def test_more_threads_than_processors_bear_are_refused(
    four: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(worker_count, "_processors", lambda: 2)
    told = run(pytester, "--threads", asked)
    assert (
        f"--threads must be at most 2, 1 for each of this machine's processors, got {asked}" in told
    )
    assert "4 passed" in run(pytester, "--threads", "2")
