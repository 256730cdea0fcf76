"""What is printed is what a reader is meant to see, to the letter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import made_up_run as run
import pandas as pd
import pytest
from clone import GOLDEN
from stated_margins import answered

from saebench_canon.errors import CanonError
from saebench_canon.plugin.question import Answer
from saebench_canon.reports.table_formats import html, long, markdown, write
from saebench_canon.reports.terminal import number, text, text_answers
from saebench_canon.tables.summarise import summarise
from saebench_canon.tables.summary import Summary


def summary(rows: list[dict[str, Any]] | None = None) -> Summary:
    return summarise(run.rows() if rows is None else rows, run.declared(), tables=run.tables)


def shown(summary: Summary, **options: Any) -> str:
    """The page of a run that is asked all three questions by the stated margins."""
    return text(summary, answered(summary), **options)


def trouble() -> Summary:
    """A run of one architecture in which an SAE is unfit, one doubtful, and a case failed."""
    rows = run.rows(archs=["topk"])
    for row in rows:
        marked = row["label"] == "fidelity"
        if marked and row["subject"] == ["topk-w512-s2"]:
            reason = "explained variance .43 is below .5"
            row["marks"] = [{"kind": "unfit", "reason": reason}]
        if marked and row["subject"] == ["topk-w128-s1"]:
            reason = "explains less than 6 principal components"
            row["marks"] = [{"kind": "caveat", "reason": reason}]
        if row["label"] == "ladder" and row["subject"] == ["topk-w128-s1", "topk-w256-s1"]:
            row.update(status="failed", value=None, reason="a code is not finite")
    return summary(rows)


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("run.txt", lambda: shown(summary())),
        ("trouble.txt", lambda: shown(trouble())),
        ("one-seed.txt", lambda: shown(summary(run.rows(archs=["relu"], seeds=[0])))),
        ("trouble.md", lambda: markdown(trouble(), answered(trouble()))),
    ],
)
def test_the_page_is_the_golden_one(name: str, page: Any) -> None:
    assert page() == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("all_scores", [False, True])
def test_no_line_is_wider_than_100_columns(all_scores: bool) -> None:
    for tables in (summary(), trouble()):
        assert max(map(len, shown(tables, all_scores=all_scores).splitlines())) <= 100


def test_a_table_too_wide_goes_on_below_itself() -> None:
    tables = summary(run.rows(archs=["relu"]))
    lines = shown(tables, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert sum(line.startswith("width") for line in lines) >= 5


def test_floors_are_no_table_of_their_own_unless_all_is_asked() -> None:
    assert '"noise"' not in text(summary())
    assert '"noise"' in text(summary(), all_scores=True)


def test_without_answers_the_tables_stand_alone() -> None:
    tables = summary()
    assert "complete?" in shown(tables)
    for page in (text(tables), markdown(tables), html(tables)):
        assert "complete?" not in page


def test_a_long_question_of_a_plugin_keeps_the_sentences_in_a_column() -> None:
    tables = summary(run.rows(archs=["relu"]))
    (block,) = tables.blocks
    long_name = Answer("yes", "It is.", position="128", question="interpretable?", axes=block.axes,
                       data=block.data)  # fmt: skip
    lines = text(tables, [*answered(tables), long_name]).splitlines()
    (mine,) = (line for line in lines if line.startswith("interpretable?"))
    first = next(line for line in lines if line.startswith("complete?") and "Not" in line)
    assert mine.index("It is.") == first.index(answered(tables)[0].sentence[:12])


def test_the_answers_can_be_printed_alone() -> None:
    tables = summary()
    page = text_answers(tables, answered(tables))
    assert page.count("\n── ") == 3
    assert "width" not in page.replace("to width", "")
    assert page.count("\nunique?") == 3 + 1  # a sentence of each block, and what is asked
    assert text_answers(tables, []) == "No question was asked.\n"


def test_a_run_without_rows_says_so() -> None:
    assert text(summary([])) == "Nothing was measured.\n"


def test_what_was_not_measured_yet_is_named_and_takes_no_table() -> None:
    rows = run.rows()
    for row in rows:
        if row["axes"]["arch"] == "topk" or row["metric"] == "meta_sae":
            row.update(status="missing", value=None)
    page = shown(summary(rows))
    assert "── topk" not in page
    assert "Not measured yet: topk." in page
    assert "meta_sae v1" not in page
    assert "meta-SAE" not in page
    assert "* missing: meta_sae (relu-w128-s0 and 8 more)" in page


def test_a_score_undefined_everywhere_is_a_note_and_no_column() -> None:
    page = text(summary())
    assert "loss_recovered ↑" not in page
    assert "– undefined: fidelity loss_recovered: no language model is given" in page


def test_the_long_form_keeps_every_score_at_full_precision(tmp_path: Path) -> None:
    tables = summary()
    write(tables, tmp_path / "run.csv")
    read = pd.read_csv(tmp_path / "run.csv")
    assert len(read) == len(long(tables)) == 3 * (3 * 6 + 5 * 14 + 3 * 10 + 5 * 6 + 3 * 10)
    step = read[(read.arch == "relu") & (read.line == "128 → 256") & (read.score == "novel_share")]
    (cell,) = [
        line.cells["novel_share"]
        for table in tables.blocks[0].tables
        if table.label == "ladder"
        for line in table.lines
        if line.key == (128, 256)
    ]
    assert cell.estimate is not None
    assert cell.floor is not None
    assert step.value.item() == cell.estimate.value
    assert step.half_width.item() == cell.estimate.half_width
    assert step.floor.item() == cell.floor.value
    assert (step.width.item(), step.smaller.item(), step.n.item()) == (256, 128, 3)
    assert step.data.item() == "docs"


def test_every_format_can_be_written(tmp_path: Path) -> None:
    tables = trouble()
    answers = answered(tables)
    for suffix in ("txt", "md", "html", "csv", "parquet"):
        write(tables, tmp_path / f"run.{suffix}", answers)
        assert (tmp_path / f"run.{suffix}").stat().st_size > 1000
    for suffix in ("txt", "md", "html"):
        page = (tmp_path / f"run.{suffix}").read_text(encoding="utf-8")
        assert "Another seed finds" in " ".join(page.split())
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run.parquet"), long(tables))


def test_an_unknown_format_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CanonError, match=r"'\.docx'"):
        write(summary(), tmp_path / "run.docx")


def test_names_are_escaped() -> None:
    rows = [row | {"suite": "<b>|"} for row in run.rows(archs=["a|<i>"], widths=[128])]
    assert "<i>" not in html(summary(rows))


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (0.4567, 3, ".457"),
        (-0.4567, 2, "-.46"),
        (-0.0001, 2, ".00"),
        (0.9999, 2, "1.00"),
        (12.34, 1, "12.3"),
        (10.0, 0, "10"),
        (0.2, 0, "0"),
    ],
)
def test_numbers_are_printed_as_papers_do(value: float, digits: int, shown: str) -> None:
    assert number(value, digits) == shown


def test_tables_import_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, saebench_canon.reports.table_formats; "
        "print([m for m in ('torch', 'pandas', 'scipy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
