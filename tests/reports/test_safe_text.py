"""Text of suites and checkpoints is shown by every page and table, and obeyed by none."""

from __future__ import annotations

import csv as csv_reader
import io
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import made_up_run as run
import pytest

from saebench_canon.errors import UNPRINTABLE
from saebench_canon.plugin.question import Answer
from saebench_canon.plugin.registry import load_registry
from saebench_canon.reports.safe_text import for_markdown_cell, for_spreadsheet
from saebench_canon.reports.terminal import text, text_answers
from saebench_canon.tables.summarise import summarise
from saebench_canon.tables.summary import Summary

ORDERS = {
    "clear": "a\x1b[2J\x1b]0;title\x07b",
    "c1": "a\x9b31mb\x7f\x00",
    "bidi": "a\u202eb\u2066c\u200f",
    "unseen": "a\u200bb\ufeffc\U000e0041",
    "lines": "a\nPASSED\r\n| x | y |\u2028b",
    "tag": "a<script>alert(1)</script><img src=x onerror=y>",
    "comment": "a<!-- b",
    "bars": "a|b\\|c\\",
    "link": "![a](http://b.example/c)",
    "formula": "=cmd|' /C calc'!A0",
    "plus": "+1+cmd",
    "minus": "-1+cmd",
    "at": "@SUM(1)",
    "tab": "\t=1",
    "dollar": r"a$\frac$b",
}


def hostile(order: str) -> list[dict[str, Any]]:
    """A run in which everything that a suite or a checkpoint may name is the order."""
    rows = run.rows(archs=["topk"], widths=[128, 256])
    for row in rows:
        for member in row["members"]:
            member["arch"] = order
        row.update(suite=order, data=order, axes={"arch": order})
        row["subject"] = [f"{order}{name}" for name in row["subject"]]
        if row["label"] in ("noise", "ladder"):
            row["label"] = f"{order}{row['label']}"
        if row["label"] == "fidelity":
            row["marks"] = [{"kind": "caveat", "reason": order}]
            row["reference"] = {"value": 0.5, "source": order}
        if row["score"] == "l0":
            row.update(status="failed", value=None, reason=order)
    return rows


def answers(summary: Summary, order: str) -> list[Answer]:
    block = summary.blocks[0]
    answer = Answer(
        "undecided", f"{order} is said.", notes=(order,), position=order,
        question="complete?", data=block.data, axes=dict(block.axes),
    )  # fmt: skip
    return [answer]


@pytest.fixture(params=ORDERS)
def order(request: pytest.FixtureRequest) -> str:
    return ORDERS[request.param]


def exported(order: str, suffix: str, folder: Path) -> str:
    """What a report writes of a hostile run."""
    rows, metrics = hostile(order), run.declared()
    summary = summarise(rows, metrics)
    report = load_registry().reports[suffix]
    arguments = {"answers": answers(summary, order)} if report.reads_answers else {}
    report.write(rows, metrics, folder / f"run{suffix}", **arguments)
    return (folder / f"run{suffix}").read_text(encoding="utf-8")


def test_the_terminal_shows_orders_as_text(order: str) -> None:
    summary = summarise(hostile(order), run.declared(), tables=run.tables)
    page = text(summary, answers(summary, order), all_scores=True)
    page += text_answers(summary, answers(summary, order))
    assert not UNPRINTABLE.search(page)
    assert not [line for line in page.splitlines() if line.startswith(("PASSED", "| x"))]


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html", ".csv"])
def test_no_file_holds_what_a_terminal_obeys(order: str, suffix: str, tmp_path: Path) -> None:
    assert not UNPRINTABLE.search(exported(order, suffix, tmp_path))


class Tags(HTMLParser):
    """The tags and comments that a reader of HTML finds."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")


def tags_of(page: str) -> set[str]:
    parser = Tags()
    parser.feed(page)
    return set(parser.tags)


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html"])
def test_no_name_is_a_tag(order: str, suffix: str, tmp_path: Path) -> None:
    page = exported(order, suffix, tmp_path)
    assert tags_of(page) == tags_of(exported("a", suffix, tmp_path))
    assert "<script" not in page


def grid(page: str) -> Iterator[list[str]]:
    """The cells of each line of the tables of a Markdown page, by the rules of GitHub."""
    for line in page.splitlines():
        if line.startswith("|"):
            cells, escaped = [""], False
            for letter in line:
                if letter == "|" and not escaped:
                    cells.append("")
                else:
                    cells[-1] += letter
                escaped = letter == "\\" and not escaped
            yield cells


def test_no_name_breaks_a_table_of_markdown(order: str, tmp_path: Path) -> None:
    plain = exported("a", ".md", tmp_path)
    page = exported(order, ".md", tmp_path)
    assert [len(line) for line in grid(page)] == [len(line) for line in grid(plain)]
    assert len(page.splitlines()) == len(plain.splitlines())
    assert "](" not in page


@pytest.mark.parametrize("cell", ["a|b", "a\\|b", "a\\", "\\\\|", "|"])
def test_a_cell_stays_one_cell(cell: str) -> None:
    (cells,) = grid(f"| {for_markdown_cell(cell)} | b |")
    assert len(cells) == 4


def test_no_cell_of_csv_is_a_formula(order: str, tmp_path: Path) -> None:
    lines = list(csv_reader.reader(io.StringIO(exported(order, ".csv", tmp_path))))
    assert len({len(line) for line in lines}) == 1
    assert len(lines) > 10
    for cell in (cell.strip() for line in lines for cell in line):
        assert not cell.startswith(("=", "+", "@", "\t", "\r"))
        if cell.startswith("-"):
            assert [float(word) for word in cell.split()]


@pytest.mark.parametrize("text", ["=1", "+a", "-a", "@a", "\t=1", " =1", "＝1", "-1+a"])
def test_a_formula_gets_an_apostrophe(text: str) -> None:
    assert for_spreadsheet(text).startswith("'")


@pytest.mark.parametrize("value", ["-0.5", "-1e-05", "-0.5 0.25", "+2", "a=b", "", "relu", -0.5, 3])
def test_numbers_and_words_stay_as_they_are(value: object) -> None:
    assert for_spreadsheet(value) == value
