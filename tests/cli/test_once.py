"""A run prints each failure and each warning once, with its text."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import write_acts, write_sae

from saebench_canon.cli.run import _hermetic, pytest_arguments

PLUGIN = """
import warnings

from saebench_canon import CanonError, Score, hookimpl, metric


def fails(name, error, *scores):
    def measure(sae, seed):
        warnings.warn("the sky is falling\\nslowly")
        if error is not None:
            raise error
        return {"count": 1.0}

    measure.__name__ = name
    return metric(scores=[Score("count")], of="sae", version=1)(measure)


@hookimpl
def canon_metrics():
    return [
        fails("told", CanonError("the moon is \\x1b[31mcheese", where="the sky", hint="Look.")),
        fails("alike", CanonError("the moon is \\x1b[31mcheese", where="the sky", hint="Look.")),
        fails("bug", ValueError("no such width")),
        fails("system", PermissionError(13, "Permission denied", "x.bin")),
        fails("fine", None),
    ]
"""
SENTENCES = {
    "told": "the moon is \\x1b[31mcheese (the sky). Look.",
    "bug": "ValueError: no such width",
    "system": "the file or folder x.bin cannot be used: Permission denied",
}


@pytest.fixture
def folder(pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two SAEs; pytester has changed to its own before."""
    monkeypatch.chdir(tmp_path)
    Path("plug.py").write_text(PLUGIN)
    write_acts(tmp_path / "acts.safetensors")
    for name in "ab":
        write_sae(tmp_path / name, 8, seed=ord(name))
    return tmp_path


def printed(pytester: pytest.Pytester, metrics: str, *options: str) -> str:
    """What a run of both SAEs prints."""
    arguments = ["a", "b", "--metrics", metrics, "--plugin", "plug.py", *options]
    with _hermetic():
        result = pytester.runpytest_inprocess(*pytest_arguments(arguments))
    assert result.ret == (0 if metrics == "fine" else 1)
    return result.stdout.str()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", SENTENCES)
@pytest.mark.parametrize("options", [(), ("-q",), ("-v",)])
def test_a_failure_of_several_cases_is_printed_once(
    pytester: pytest.Pytester, name: str, options: tuple[str, ...]
) -> None:
    text = printed(pytester, name, *options)
    assert text.count(SENTENCES[name]) == 1
    assert f"* failed: {name} (w8-s0; w8-s1)" in text
    if name != "bug":  # the source line of a traceback has it too
        assert text.count("cheese" if name == "told" else "Permission denied") == 1


@pytest.mark.usefixtures("folder")
def test_failures_are_headed_by_all_their_cases(pytester: pytest.Pytester) -> None:
    text = printed(pytester, "told,alike,bug")
    assert text.count(SENTENCES["told"]) == text.count(SENTENCES["bug"]) == 1
    headings = [line.strip("_ ") for line in text.splitlines() if line.startswith("__")]
    assert headings == [
        "w8-s0 told, w8-s0 alike, w8-s1 told and 1 more", "w8-s0 bug, w8-s1 bug",
    ]  # fmt: skip
    assert "6 failed" in text.splitlines()[-1]


@pytest.mark.usefixtures("folder")
def test_without_tracebacks_the_tables_have_the_sentence(pytester: pytest.Pytester) -> None:
    text = printed(pytester, "told", "--tb=no")
    assert " ".join(text.split()).count(SENTENCES["told"]) == 1


@pytest.mark.usefixtures("folder")
def test_a_failure_of_an_earlier_run_keeps_its_sentence(pytester: pytest.Pytester) -> None:
    printed(pytester, "bug,fine")
    text = " ".join(printed(pytester, "bug,fine", "-k", "s0").split())
    assert "* failed: bug (w8-s0)" in text
    assert f"* failed: bug: {SENTENCES['bug']} (w8-s1)" in text


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("options", [(), ("-q",)])
def test_a_warning_is_printed_with_its_text_once(
    pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    text = printed(pytester, "fine", *options)
    assert "2 warnings" in text.splitlines()[-1]
    assert text.count("the sky is falling") == 1
    assert "warning: UserWarning: the sky is falling slowly (2 times)" in text


@pytest.mark.usefixtures("folder")
def test_workers_print_no_more(pytester: pytest.Pytester) -> None:
    text = printed(pytester, "told,bug,fine", "-n2")
    assert text.count(SENTENCES["told"]) == text.count(SENTENCES["bug"]) == 1
    assert "warning: UserWarning: the sky is falling slowly (6 times)" in text
    assert "4 failed, 2 passed, 6 warnings" in text.splitlines()[-1]


@pytest.mark.usefixtures("folder")
def test_no_warning_is_counted_that_has_no_text(pytester: pytest.Pytester) -> None:
    Path("plug.py").write_text(PLUGIN.replace("warnings.warn", "str"))
    text = printed(pytester, "fine")
    assert "warning" not in text
    assert "2 passed" in text.splitlines()[-1]
