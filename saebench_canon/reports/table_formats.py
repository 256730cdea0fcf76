"""How tables become Markdown, HTML, and long form for CSV and Parquet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.metric import Score
from saebench_canon.plugin.question import Answer
from saebench_canon.plugin.table_line import Cell, Estimate, Line
from saebench_canon.reports.grid import answers_on, grid
from saebench_canon.reports.safe_text import (
    for_markdown,
    for_markdown_cell,
    for_spreadsheet,
    on_lines,
    without_tags,
)
from saebench_canon.reports.terminal import (
    columns_of,
    companions,
    heading,
    legend,
    line_title,
    measured_on,
    not_begun,
    note_sentence,
    number_and_rest,
    sentence,
    tables_shown,
    text,
    title_of,
    with_full_stop,
)
from saebench_canon.tables.summary import Block, Note, Summary, Table

if TYPE_CHECKING:
    import pandas as pd

STYLE = "<style>th, td { padding: 0 .8em; text-align: right } body { margin: 2em }</style>"


def markdown(summary: Summary, answers: Sequence[Answer] = (), *, all_scores: bool = True) -> str:
    """The tables as Markdown, nulls and floors inside the cells."""
    summary, answers = on_lines(summary), on_lines(answers)
    parts = [for_markdown(sentence) for sentence in measured_on(summary)]
    if (shown := grid(summary, answers)) is not None:
        rule = ["---"] * len(shown.head)
        written = map(_markdown_line, (shown.head, rule, *shown.lines))
        parts.append("\n".join(written))
        parts.append("\n".join(for_markdown(f"- **{q}** {t}") for q, t in shown.legend.items()))
    for block in summary.begun:
        parts.append(f"## {for_markdown(block.title or summary.suite)}")
        answer_lines = [
            for_markdown(f"- **{answer.question}** {_prefix(answer)}{sentence(answer)}")
            for answer in answers_on(block, answers)
        ]
        parts.append("\n".join(answer_lines))
        for table in tables_shown(block, all_scores=all_scores):
            head, lines = _grid(table, columns_of(table, all_scores=all_scores))
            alignment = ["---", *("--:" for _ in head[1:])]
            body = "\n".join(_markdown_line(line) for line in (head, alignment, *lines))
            title = f"**{title_of(table)}** {with_full_stop(table.about)}".strip()
            parts += [for_markdown(title), body]
            parts += [for_markdown(table.interval()), for_markdown(table.sources())]
        parts.append("\n".join(f"- {_note(note)}" for note in block.notes))
    parts += [for_markdown(not_begun(summary)), legend(summary, all_scores=all_scores)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(for_markdown_cell, cells))} |"


def _note(note: Note) -> str:
    return for_markdown(note_sentence(note).replace("*", r"\*"))


def _prefix(answer: Answer) -> str:
    return f"{answer.position}: " if answer.position else ""


def html(summary: Summary, answers: Sequence[Answer] = (), *, all_scores: bool = True) -> str:
    """The tables as one plain HTML page."""
    summary, answers = on_lines(summary), on_lines(answers)
    parts = [f"<!doctype html><meta charset='utf-8'><title>{escape(summary.suite)}</title>{STYLE}"]
    parts += [f"<p>{escape(sentence)}</p>" for sentence in measured_on(summary)]
    if (shown := grid(summary, answers)) is not None:
        parts += ["<table>", _html_line("th", shown.head)]
        parts += [*(_html_line("td", line) for line in shown.lines), "</table>"]
        parts += ["<p>" + "<br>".join(escape(f"{q} {t}") for q, t in shown.legend.items()) + "</p>"]
    for block in summary.begun:
        parts.append(f"<h2>{escape(block.title or summary.suite)}</h2>")
        parts += _html_list(
            f"{answer.question} {answer.position} {sentence(answer)}"
            for answer in answers_on(block, answers)
        )
        for table in tables_shown(block, all_scores=all_scores):
            head, lines = _grid(table, columns_of(table, all_scores=all_scores))
            parts.append(f"<h3>{escape(title_of(table))}</h3><p>{escape(table.about)}</p><table>")
            parts.append(_html_line("th", head))
            parts += [_html_line("td", line) for line in lines]
            footer = [paragraph for paragraph in (table.interval(), table.sources()) if paragraph]
            parts.append(f"</table><p>{'<br>'.join(map(escape, footer))}</p>")
        parts += _html_list(note_sentence(note) for note in block.notes)
    closing = (not_begun(summary), legend(summary, all_scores=all_scores))
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in closing if paragraph]
    return "\n".join(parts) + "\n"


def long(summary: Summary) -> pd.DataFrame:
    """One row per score of every line, at full precision."""
    import pandas as pd

    return pd.DataFrame(list(_records(summary)))


def csv(summary: Summary) -> str:
    """The same as CSV, in which no cell is a formula of a spreadsheet."""
    frame = long(summary).rename(columns=for_spreadsheet)
    return frame.map(for_spreadsheet).to_csv(index=False, lineterminator="\n")


def write(summary: Summary, path: Path, answers: Sequence[Answer] = ()) -> None:
    """Write the tables to a file; its suffix chooses the format."""
    match path.suffix:
        case ".txt":
            path.write_text(without_tags(text(summary, answers)), encoding="utf-8")
        case ".md":
            path.write_text(markdown(summary, answers), encoding="utf-8")
        case ".html":
            path.write_text(html(summary, answers), encoding="utf-8")
        case ".csv":
            path.write_text(csv(summary), encoding="utf-8")
        case ".parquet":
            long(summary).to_parquet(path, index=False)
        case suffix:
            raise CanonError(
                f"tables cannot be written as '{suffix}'",
                where=str(path),
                hint=nearest(suffix, (".txt", ".md", ".html", ".csv", ".parquet")),
            )


def _grid(table: Table, columns: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    """Header and lines with null and floor inside the cells."""
    lines = []
    for line in table.lines:
        cells = [line.cells.get(column.name) for column in columns]
        shown = [
            "" if cell is None else _inline(table, column, cell)
            for column, cell in zip(columns, cells, strict=True)
        ]
        lines.append([line_title(line), *shown])
    return [table.row_axis or "SAE", *map(heading, columns)], lines


def _inline(table: Table, column: Score, cell: Cell) -> str:
    value = "".join(number_and_rest(table, column, cell, ""))
    names = ["published"] if cell.published else []
    names += [name for name, _ in companions(table, column, cell)]
    shown = [
        f"{name} {''.join(number_and_rest(table, column, cell, name)).strip()}" for name in names
    ]
    return f"{value} ({', '.join(shown)})" if shown else value


def _html_list(sentences: Iterable[str]) -> list[str]:
    items = [f"<li>{escape(sentence)}</li>" for sentence in sentences]
    return ["<ul>", *items, "</ul>"] if items else []


def _html_line(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _records(summary: Summary) -> Iterator[dict[str, Any]]:
    for block in summary.blocks:
        for table in block.tables:
            for line in table.lines:
                for column in table.columns:
                    cell = line.cells.get(column.name)
                    if cell is not None:
                        yield _record(summary, block, table, line, column, cell)


def _record(
    summary: Summary, block: Block, table: Table, line: Line, column: Score, cell: Cell
) -> dict[str, Any]:
    estimate = cell.estimate
    sized = {table.row_axis: line.key[-1], "smaller": _smaller(line)} if table.row_axis else {}
    return {
        "suite": summary.suite,
        "block": block.title,
        **{name: value for name, value in block.axes.items() if name not in sized},
        "data": block.data,
        "label": table.label,
        "metric": table.metric,
        "version": table.version,
        "over": table.over,
        "line": line.title,
        **sized,
        "score": column.name,
        "better": column.better,
        "status": cell.status,
        "value": _value(estimate),
        "half_width": _half_width(estimate),
        "level": summary.level,
        "interval": estimate.kind if estimate else None,
        "n": estimate.n if estimate else None,
        "unit": estimate.unit if estimate else None,
        "values": " ".join(map(repr, estimate.values)) if estimate else None,
        "null": _value(cell.null),
        "floor": _value(cell.floor),
        "floor_half_width": _half_width(cell.floor),
        "floor_small": _value(cell.floor_small),
        "floor_small_half_width": _half_width(cell.floor_small),
        "published": cell.published.value if cell.published else math.nan,
        "published_source": cell.published.source if cell.published else None,
        "lost": cell.lost,
        "unfit": line.unfit,
        "caveat": line.caveat,
    }


def _smaller(line: Line) -> Any:
    return line.key[0] if len(line.key) > 1 else None


def _value(estimate: Estimate | None) -> float:
    return math.nan if estimate is None else estimate.value


def _half_width(estimate: Estimate | None) -> float:
    half_width = None if estimate is None else estimate.half_width
    return math.nan if half_width is None else half_width
