"""Brackets and colons in paths: what pytest would split is one path, of a suite as of a store."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from planted import SUITE

from saebench_canon.cli.arguments import split
from saebench_canon.cli.run import _hermetic, pytest_arguments

NAMES = ("a[0]", "a::b", "ab::c", "a[x]::y[0]", "x]")


@pytest.fixture
def here(suite: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a suite that takes no time."""
    suite.write_text(SUITE.partition('[[metric]]\nname = "stitching"')[0])
    monkeypatch.chdir(suite.parent)
    monkeypatch.setenv("TMPDIR", str(suite.parent))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return suite.parent


def run(pytester: pytest.Pytester, *words: str) -> pytest.RunResult:
    with _hermetic():
        return pytester.runpytest_inprocess(*pytest_arguments(words))


@pytest.mark.parametrize(
    ("name", "workers"), [*((name, []) for name in NAMES), ("a[x]::y[0]", ["-n", "2"])]
)
def test_a_store_a_suite_and_saes_may_be_called_so(
    here: Path, pytester: pytest.Pytester, name: str, workers: list[str]
) -> None:
    folder = here / name
    folder.mkdir()
    for file in ("small.toml", "acts.safetensors", "saes"):
        (here / file).rename(folder / file)
    for words in (
        [f"{name}/saes", "--data", f"{name}/acts.safetensors", "--metrics", "fidelity"],
        [f"./{name}/small.toml"], [f"{name}/small.toml"],
    ):  # fmt: skip
        result = run(pytester, *words, "--store", f"{name}/st", *workers)
        assert result.ret == 0
        result.assert_outcomes(passed=4)
    assert len(list((folder / "st" / "records").iterdir())) == 4  # the same SAEs on the same data
    assert not list(here.glob("canon-*"))


def test_the_names_of_cases_still_follow_a_suite(here: Path, pytester: pytest.Pytester) -> None:
    Path("small.toml").rename("small[1].toml")
    result = run(pytester, "small[1].toml::relu-w24-s0", "-v")
    result.assert_outcomes(passed=1)
    assert "small[1].toml::relu-w24-s0::fidelity PASSED" in result.stdout.str()
    for workers in ((), ("-n", "2")):
        result = run(pytester, "small[1].toml::relu-w24-s0::fidelity", *workers)
        result.assert_outcomes(passed=1)
    result = run(pytester, "small[1].toml::relu-w99")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: no subject 'relu-w99'*"])


def test_a_path_is_split_only_where_it_does_not_exist(here: Path) -> None:
    for name in ("ab::c", "x::y", "ab"):
        Path(name).mkdir()
    assert split("ab::c") == ("./ab::c", [])
    assert split("./x::y::z::w") == ("./x::y", ["z", "w"])
    assert split("ab::d") == ("ab", ["d"])
    assert split("quickstart::w16::fidelity") == ("quickstart", ["w16", "fidelity"])


def test_what_is_not_there_says_what_colons_mean(here: Path, pytester: pytest.Pytester) -> None:
    result = run(pytester, "./a::b", "--metrics", "fidelity")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: there is no suite, file or folder './a'. `::` separates*"])


def test_without_a_place_for_a_link_it_is_a_sentence(
    here: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "t[0]").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(here / "t[0]"))
    Path("small.toml").rename("small[1].toml")
    result = run(pytester, "small[1].toml")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: pytest cannot read a path with '[[]' *rename the suite."])
