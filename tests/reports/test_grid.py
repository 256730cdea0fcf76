"""The grid of answers: a line for each size, a column for each question."""

from __future__ import annotations

import made_up_run as run
from stated_margins import answered

from saebench_canon.plugin.question import Answer
from saebench_canon.reports.grid import grid
from saebench_canon.reports.table_formats import html, markdown
from saebench_canon.reports.terminal import text, text_grid
from saebench_canon.tables.summarise import summarise
from saebench_canon.tables.summary import Summary

DATA = {"docs": "packaged:tiny-lm at blocks.3.hook_resid_pre, reading packaged:python-docs"}


def summary(**options: object) -> Summary:
    rows = run.rows(**options)  # type: ignore[arg-type]
    return summarise(rows, run.declared(), tables=run.tables, data=DATA)


def test_each_size_has_a_line_and_a_step_stands_with_its_smaller_size() -> None:
    tables = summary(archs=["relu"])
    found = grid(tables, answered(tables))
    assert found is not None
    assert found.head == ("", "SAEs", "complete?", "atomic?", "unique?", "canonical?")
    names, counts, complete, *_ = zip(*found.lines, strict=True)
    assert names == ("relu 128", "relu 256", "relu 512")
    assert counts == ("3", "3", "3")
    assert complete == ("no: lacks .30", "no: lacks .30", "–")
    assert "next larger one" in found.legend["complete?"]


def test_a_cell_says_the_word_where_a_rule_gives_nothing_shorter() -> None:
    tables = summary(archs=["relu"], widths=[128])
    (block,) = tables.blocks
    answers = [
        Answer(word, "It is.", size=size, question="sparse?", axes=block.axes, data=block.data)
        for word, size in (("not-judged", 128), ("yes", 128), ("yes", 128), ("no", 4096))
    ]
    found = grid(tables, answers)
    assert found is not None
    assert found.lines == (("relu 128", "3", "not judged; yes"), ("relu 4096", "0", "no"))
    assert not found.legend


def test_an_answer_without_a_size_stands_with_each() -> None:
    tables = summary(archs=["relu"])
    (block,) = tables.blocks
    answer = Answer("no", "No.", question="sparse?", axes=block.axes, data=block.data)
    found = grid(tables, [answer])
    assert found is not None
    assert [line[-1] for line in found.lines] == ["no", "no", "no"]
    assert grid(tables, []) is None


def test_what_was_measured_on_comes_first_then_the_grid_sentences_and_tables() -> None:
    tables = summary(archs=["relu"])
    page = text(tables, answered(tables))
    order = ("Measured on packaged:tiny-lm at", "relu 128", "\n── relu", "fidelity v")
    places = [page.index(start) for start in order]
    assert places == sorted(places)
    for other in (markdown, html):
        written = other(tables, answered(tables))
        places = [
            written.index(start) for start in ("Measured on packaged", "relu 128", "fidelity v")
        ]
        assert places == sorted(places)


def test_alone_it_has_no_sentences_and_no_tables() -> None:
    tables = summary(archs=["relu"])
    page = text_grid(tables, answered(tables))
    assert "relu 512" in page
    assert "──  " in page
    assert "\n── relu" not in page
    assert "fidelity v" not in page


def test_where_no_question_was_asked_there_are_tables() -> None:
    tables = summary(archs=["relu"])
    assert text_grid(tables, []) == text(tables)
    assert "fidelity v" in text_grid(tables, [])
