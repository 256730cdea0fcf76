"""Output: terminals of any encoding, readers that leave, and Python without docstrings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from planted import SUITE

from saebench_canon.cli.streams import ERRORS, allow_any_encoding

PROGRAM = [sys.executable, "-m", "saebench_canon"]


@pytest.fixture
def small(suite: Path) -> Path:
    """The small suite with `fidelity` alone."""
    text = SUITE.split("[[metric]]")[0] + '[[metric]]\nname = "fidelity"\n'
    suite.write_text(text)
    return suite


def program(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, *words], capture_output=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_command_prints_in_any_encoding(small: Path, encoding: str) -> None:
    for words in (["run", "small.toml"], ["show"], ["plan", "small.toml"], ["ls"]):
        result = program(*words, PYTHONIOENCODING=encoding)
        text = result.stdout.decode(encoding) + result.stderr.decode(encoding)
        assert result.returncode == 0, text
        assert "Traceback" not in text
        assert "\\u2" not in text
    shown = program("show", PYTHONIOENCODING=encoding).stdout.decode(encoding)
    assert ("↑" in shown) == (encoding == "utf-8")
    assert "dead_share" in shown


def test_what_an_encoding_lacks_has_a_plain_form() -> None:
    allow_any_encoding()
    assert "── ↑ ± ≥ é ☃".encode("ascii", ERRORS) == b"-- ^ +- >= ? ?"
    assert "── ↑ ± é".encode("cp1252", ERRORS) == "-- ^ ± é".encode("cp1252")


@pytest.mark.parametrize("options", ["", "-n 2"])
def test_a_run_goes_on_when_its_reader_leaves(small: Path, options: str) -> None:
    command = f"{sys.executable} -m saebench_canon run small.toml {options} | head -1"
    result = subprocess.run(
        ["bash", "-c", f'{command}; echo "${{PIPESTATUS[0]}}"'], capture_output=True, text=True
    )
    assert result.stdout.split()[-1] == "0", result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    assert len(list(Path(".canon/records").glob("*.json"))) == 4


@pytest.mark.parametrize("words", [["ls"], ["plugins"], ["check", "fidelity"], ["schema"]])
def test_python_without_docstrings_loses_only_their_text(words: list[str], small: Path) -> None:
    result = program(*words, PYTHONOPTIMIZE="2")
    assert b"Traceback" not in result.stderr
