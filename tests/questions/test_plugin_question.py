"""A question of a plugin's own is answered, printed and set like a built-in one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import made_up_run as run
import pytest
from planted import SUITE
from program import call
from stated_margins import STATED, answers_on

from saebench_canon.bench.sealed_record import digest_of
from saebench_canon.errors import CanonError
from saebench_canon.plugin.question import Answer, Margin, Margins, Question
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.table_line import Block, Line
from saebench_canon.questions.ask import answers_of
from saebench_canon.tables.summarise import summarise

PLUGIN = '''
from saebench_canon import Answer, Margin, Question, Score, by_line, hookimpl, metric


@metric(scores=[Score("norm")], of="sae", version=1)
def row_norms(sae):
    """How long decoder rows are."""
    return {"norm": float(sae.W_dec.norm(dim=1).mean())}


def unit(line, margins):
    norm = line.cells["norm"].estimate
    word = "yes" if abs(norm.value - 1) <= margins["off"] else "no"
    sentence = f"Rows have norm {norm.value:.2f} (limit {margins['off']:g} off 1)."
    return Answer.on(line, word, sentence, "norm")


UNIT = Question(
    "unit?",
    help="Do decoder rows have norm 1?",
    needs=("row_norms.norm",),
    answers=("yes", "no"),
    margins=(Margin("off", 0.01, "how far a norm may be from 1"),),
    rule=by_line("row_norms", unit, scores=("norm",)),
)


@hookimpl
def canon_metrics():
    return [row_norms]


@hookimpl
def canon_questions():
    return [UNIT]
'''


def program(*words: str, cwd: Path) -> str:
    """What the program prints with the plugin."""
    done = call(*words, "--plugin", "mine.py", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "IMPORTED []" in done.stderr
    return done.stdout


def measured(cwd: Path, *words: str) -> str:
    command = [sys.executable, "-m", "saebench_canon", "run", "small.toml", "--plugin", "mine.py"]
    done = subprocess.run([*command, *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_plugin_brings_a_question_from_metric_to_sentence(suite: Path) -> None:
    home = suite.parent
    (home / "mine.py").write_text(PLUGIN)
    head = SUITE.split("[[metric]]")[0]
    tables = '[[metric]]\nname = "row_norms"\n[question."unit?"]\noff = 0.5\n'
    suite.write_text(head + tables)
    assert "unit? with off = 0.5 instead of 0.01." in program("plan", "small.toml", cwd=home)
    printed = measured(home)
    assert "unit?      24  Rows have norm 1.00 (limit 0.5 off 1)." in printed
    for name in ("complete?", "atomic?", "unique?", "was not measured"):
        assert name not in printed
    suite.write_text(suite.read_text().replace("0.5", "0.25"))  # `show` is of the run as it was
    assert "(limit 0.5 off 1)" in program("show", cwd=home)
    assert program("show", "--answers", cwd=home).count("(limit 0.5 off 1)") == 2
    answers = json.loads(program("show", "--json", "--answers", cwd=home))
    assert [(answer["size"], answer["answer"]) for answer in answers] == [(24, "yes"), (48, "yes")]
    first = answers[0]
    assert first["numbers"]["norm"]["value"] == pytest.approx(1)
    assert {**first, "numbers": {}} == {
        "suite": "small", "question": "unit?", "size": 24, "smaller": None, "axes": {},
        "answer": "yes", "sentence": "Rows have norm 1.00 (limit 0.5 off 1).", "numbers": {},
        "margins": {"off": 0.5},
    }  # fmt: skip
    program("show", "--to", "it.md", cwd=home)
    assert "- **unit?** 24: Rows have norm" in (home / "it.md").read_text()
    assert "question unit?" in program("plugins", cwd=home)
    assert "unit?            reads row_norms: Do decoder rows" in program("ls", cwd=home)
    measured(home, "--set", "question.unit?.off=0.125")
    assert "(limit 0.125 off 1)" in program("show", cwd=home)


def test_a_run_of_before_there_were_margins_is_shown_by_the_defaults(suite: Path) -> None:
    home = suite.parent
    (home / "mine.py").write_text(PLUGIN)
    suite.write_text(SUITE.split("[[metric]]")[0] + '[[metric]]\nname = "row_norms"\n')
    measured(home, "-q")
    (file,) = (home / ".canon" / "runs").glob("*.json")
    record = json.loads(file.read_text())
    assert record.pop("questions") == {"unit?": {"off": 0.01}}
    file.write_text(json.dumps({**record, "digest": digest_of(record)}))
    shown = program("show", "--answers", cwd=home)
    assert shown.count("(limit 0.01 off 1)") == 2
    assert "unique?" not in shown


def test_two_owners_of_one_question_are_an_error_naming_both(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace('"unit?"', '"unique?"'))
    registry = load_registry([tmp_path / "mine.py"])
    with pytest.raises(CanonError, match=r"built-in and mine both have 'unique\?'"):
        _ = registry.questions


def block() -> Block:
    return summarise(run.rows(archs=["relu"]), run.declared(), tables=run.tables).blocks[0]


def asks(rule: Any) -> Question:
    limit = Margin("most", 1.0, "a limit")
    return Question("mine?", ("fidelity",), ("yes",), rule, margins=(limit,))


def test_an_answer_must_be_one_of_the_declared_words() -> None:
    with pytest.raises(CanonError, match=r"'mine\?' answered 'ja', which it does not declare"):
        asks(lambda block, margins: [Answer("ja", "It is.")]).ask(block())


def test_an_unknown_margin_is_refused() -> None:
    with pytest.raises(CanonError, match=r"no margin 'mots'.*'most'"):
        asks(lambda block, margins: []).ask(block(), mots=2.0)


def test_a_rule_that_fails_takes_no_other_answer_down() -> None:
    def fails(block: Block, margins: Margins) -> list[Answer]:
        raise KeyError("no_such_score")

    summary = summarise(run.rows(archs=["relu"]), run.declared(), tables=run.tables)
    questions = {"mine?": asks(fails), **load_registry().questions}
    first, *others = answers_of(summary, questions, {"mine?": {}, "unique?": STATED["unique?"]})
    assert first.answer == "not-judged"
    assert first.sentence == "not judged: the rule failed (KeyError: 'no_such_score')."
    assert [answer.question for answer in others] == ["unique?"] * 3
    assert others == [answer for answer in answers_of(summary, questions, STATED)
                      if answer.question == "unique?"]  # fmt: skip


def test_unfit_lines_and_lost_scores_are_kept_from_a_plugins_rule() -> None:
    from saebench_canon import by_line

    def judge(line: Line, margins: Margins) -> Answer:
        return Answer.on(line, "yes", f"{line.cells['l0'].estimate.value:.0f}.", "l0")  # type: ignore[union-attr]

    rows = run.rows(archs=["relu"])
    for row in run.where(rows, label="fidelity", subject=["relu-w512-s0"]):
        row["marks"] = [{"kind": "unfit", "reason": "too dense"}]
    for row in run.where(rows, label="fidelity", subject=["relu-w128-s0"]):
        row["marks"] = [{"kind": "caveat", "reason": "odd"}]
    for row in rows:
        if row["score"] == "l0" and row["members"][0]["width"] == 256:
            row.update(status="undefined", value=None)
    (block,) = summarise(rows, run.declared(), tables=run.tables).blocks
    small, middle, large = asks(by_line("fidelity", judge, scores=("l0",))).ask(block)
    assert (small.answer, small.notes) == ("yes", ("odd (relu-w128-s0)",))
    assert set(small.numbers) == {"l0"}
    assert middle.sentence == "not judged: l0 is undefined (see the notes)."
    assert large.sentence == "not judged: too dense (relu-w512-s0)."
    (lost,) = asks(by_line("nothing", judge)).ask(block)
    assert lost.sentence == "not judged: nothing was not measured."


def test_answers_leave_as_json_with_their_numbers_and_margins() -> None:
    answers = [answer.to_dict() for answer in answers_on(block(), unique=0.95)]
    json.dumps(answers)
    unique = next(answer for answer in answers if answer["question"] == "unique?")
    assert (unique["size"], unique["smaller"], unique["axes"]) == (128, None, {"arch": "relu"})
    assert unique["margins"] == {**STATED["unique?"], "unique": 0.95}
    assert "the same from .95" in unique["sentence"]
    shared = unique["numbers"]["found_again_share"]
    assert shared["lo"] < shared["value"] < shared["hi"]
    assert 0 <= shared["null"] < 0.1
    step = answers[0]
    assert (step["question"], step["size"], step["smaller"]) == ("complete?", 256, 128)
    assert step["numbers"]["missing_stable_share"]["floor"] > 0
    atomic = [answer for answer in answers if answer["question"] == "atomic?"][-1]
    assert (atomic["size"], atomic["smaller"]) == (512, None)
    assert set(atomic["numbers"]) >= {"meta_sae.composed_excess", "composed_share"}
