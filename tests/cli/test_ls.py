"""`ls` says in plain words what suites can name."""

from __future__ import annotations

import pytest

from saebench_canon.cli.main import main

PLUGIN = '''
from saebench_canon import hookimpl
from saebench_canon.saes.checkpoint import checkpoint


@checkpoint("wooden", files=["sae.wood"])
def wooden(files):
    """SAEs carved in wood.

    By hand.
    """
    raise NotImplementedError


class Silent:
    scheme = "silent"


@hookimpl
def canon_adapters():
    return [wooden, Silent()]
'''


def test_each_scheme_says_what_it_reads(
    tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANON_PLUGINS", "")
    (tmp_path / "carved.py").write_text(PLUGIN)
    assert main(["ls", "--plugin", str(tmp_path / "carved.py")]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "wooden:          SAEs carved in wood." in lines
    assert "silent:" in lines
    schemes = [line.split(maxsplit=1) for line in lines[lines.index("schemes") + 1 :]]
    sentences = [words[1] for words in schemes if len(words) == 2]
    assert len(sentences) == len(set(sentences)) == 4


def test_a_metric_is_of_an_sae(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    printed = capsys.readouterr().out
    assert "fidelity         of an SAE: " in printed
    assert "of a sae" not in printed
