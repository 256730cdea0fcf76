"""A metric from `new metric`, installed as a distribution, is used as the built-in ones are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from program import call

from saebench_canon.cli.main import main

SCORES = """
        Score("rare_share", help="Share of live latents that are rare."),
        Score("common_null", help="The share in shuffled codes."),
    ],
    cost=cost,"""


@pytest.fixture
def installed(suite: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a suite of one metric, which only the installed distribution brings.

    The template's one score gets a null, and another one that is no headline.
    """
    here = suite.parent
    assert main(["new", "metric", "common-share"]) == 0
    module = (here / "common-share" / "common_share.py").read_text()
    changes = {
        '"common_share",\n            better': '"common_share",\n            null="common_null",\n'
        "            better",
        "\n    ],\n    cost=cost,": SCORES,
        'return {"common_share": float(': 'return {"rare_share": 0.25, "common_null": 0.125, '
        '"common_share": float(',
    }
    for old, new in changes.items():
        assert module.count(old) == 1, old
        module = module.replace(old, new)
    site = here / "site"
    (site / "common_share-0.1.0.dist-info").mkdir(parents=True)
    for name, text in {
        "common_share.py": module,
        "common_share-0.1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: common-share\n"
        "Version: 0.1.0\n",
        "common_share-0.1.0.dist-info/entry_points.txt": "[saebench_canon]\n"
        "common-share = common_share\n",
    }.items():
        (site / name).write_text(text)
    path = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("CANON_PLUGINS", "common-share")
    head = suite.read_text().split("[[metric]]")[0]
    suite.write_text(f'{head}[[metric]]\nname = "common-share"\n')
    return here


def said(*words: str, here: Path) -> str:
    done = call(*words, cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def columns(page: str) -> list[str]:
    """The words of the header of the metric's table."""
    return page[page.index("common-share v1") :].splitlines()[1].split()


def test_its_cost_its_columns_and_its_null_are_there(installed: Path) -> None:
    plan = said("plan", "small.toml", here=installed)
    assert "4 cases, 4 to measure." in plan
    assert "time      about " in plan
    assert "left out" not in plan
    assert "records" not in plan  # it says itself what it costs

    said("run", "small.toml", "-q", here=installed)
    page = said("show", "small", here=installed)
    assert columns(page) == ["width", "common_share", "↓"]
    nulls = [line.split() for line in page.splitlines() if line.split()[:1] == ["null"]]
    assert nulls == [["null", ".125"]] * 2
    assert columns(said("show", "small", "--all", here=installed)) == [
        "width", "common_share", "↓", "rare_share",
    ]  # fmt: skip


def test_without_a_cost_it_is_told_by_its_records(installed: Path) -> None:
    module = installed / "site" / "common_share.py"
    module.write_text(module.read_text().replace("    cost=cost,\n", ""))
    plan = said("plan", "small.toml", here=installed)
    assert "left out  the metric common-share: not known here" in plan
    said("run", "small.toml", "-q", "-k", "w24", here=installed)
    plan = said("plan", "small.toml", here=installed)
    assert "left out" not in plan
    assert "records   common-share: less than 1 s a case, the mean of 2 earlier records" in plan


QUESTION = """

from saebench_canon import Answer, Margin, Question, by_line


def judge(line, margins):
    share = line.cells["common_share"].estimate
    word = "yes" if share.value >= margins["least"] else "no"
    sentence = f"{share.value:.2f} of the latents are common (limit {margins['least']:g})."
    return Answer.on(line, word, sentence, "common_share")


@hookimpl
def canon_questions():
    return [
        Question(
            "common?",
            help="Are most latents common?",
            needs=("common-share.common_share",),
            answers=("yes", "no"),
            margins=(Margin("least", 0.5, "share of common latents from which most are"),),
            rule=by_line("common-share", judge, scores=("common_share",)),
        )
    ]
"""


def test_a_question_of_its_own_is_answered_by_its_margin(installed: Path) -> None:
    module = installed / "site" / "common_share.py"
    module.write_text(module.read_text() + QUESTION)
    suite = installed / "small.toml"
    suite.write_text(suite.read_text() + '\n[question."common?"]\nleast = 1.5\n')
    assert "least" in said("plan", "small.toml", here=installed)
    page = said("run", "small.toml", here=installed)
    answers = [line for line in page.splitlines() if "of the latents are common" in line]
    assert len(answers) == 2  # a line a width
    assert all("(limit 1.5)" in line for line in answers)
    assert "complete?" not in page  # asked by nothing that this suite measures
    rows = json.loads(said("show", "small", "--json", "--answers", here=installed))
    assert [(row["question"], row["answer"], row["size"]) for row in rows] == [
        ("common?", "no", 24), ("common?", "no", 48),
    ]  # fmt: skip
    assert {row["margins"]["least"] for row in rows} == {1.5}
