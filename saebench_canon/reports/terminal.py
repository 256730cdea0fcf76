"""How the tables of a run look in a terminal: text at 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from saebench_canon.plugin.metric import Score
from saebench_canon.plugin.question import Answer
from saebench_canon.plugin.table_line import Cell, Estimate, Line
from saebench_canon.reports.grid import answers_on, grid
from saebench_canon.reports.safe_text import on_lines
from saebench_canon.tables.summary import Block, Note, Summary, Table

WIDTH = 100
ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
SIGNS = {
    "unfit": "† not fit to be judged",
    "caveat": "‡ caveat",
    "failed": "* failed",
    "missing": "* missing",
    "undefined": "– undefined",
}
SHOWN = 3  # a note with more names than this says "NAME and … more"

VALUES = 3  # SAEs whose values are shown one by one, if there is no interval


def text(
    summary: Summary,
    answers: Sequence[Answer] = (),
    *,
    all_scores: bool = False,
    width: int = WIDTH,
) -> str:
    """The answers, then the tables, for a terminal; a table that is too wide continues below."""
    if not summary.blocks:
        return "Nothing was measured.\n"
    summary, answers = on_lines(summary), on_lines(answers)
    parts = [*_data(summary, width), *_text_grid(summary, answers, width)]
    parts += _sentences(summary, answers, width)
    for block in summary.begun:
        parts.append(_rule(summary, block, width))
        for table in tables_shown(block, all_scores=all_scores):
            parts.append(_text_table(table, all_scores=all_scores, width=width))
        notes = [
            _wrap(note_sentence(note), "  ", width)
            for note in block.notes
            if all_scores or _is_about_shown(note, block)
        ]
        if notes:
            parts.append("\n".join(notes))
    if waiting := not_begun(summary):
        parts.append(_wrap(waiting, "", width))
    parts.append(_wrap(legend(summary, all_scores=all_scores), "", width))
    return "\n\n".join(parts) + "\n"


def text_answers(summary: Summary, answers: Sequence[Answer], *, width: int = WIDTH) -> str:
    """The answers without the tables."""
    summary, answers = on_lines(summary), on_lines(answers)
    parts = [*_text_grid(summary, answers, width), *_sentences(summary, answers, width)]
    return "\n\n".join(parts or ["No question was asked."]) + "\n"


def text_grid(summary: Summary, answers: Sequence[Answer], *, width: int = WIDTH) -> str:
    """What was measured on, and the answers as a grid; the tables where no question was asked."""
    if not answers:
        return text(summary, width=width)
    summary, answers = on_lines(summary), on_lines(answers)
    return "\n\n".join([*_data(summary, width), *_text_grid(summary, answers, width)]) + "\n"


def measured_on(summary: Summary) -> list[str]:
    """A sentence on each data table that something was measured on; by name if there are others."""
    names = dict.fromkeys(block.data or "" for block in summary.begun)
    return [
        f"Measured on {f'{name}: ' if len(names) > 1 else ''}{with_full_stop(summary.data[name])}"
        for name in names
        if name in summary.data
    ]


def _data(summary: Summary, width: int) -> list[str]:
    lines = [_wrap(sentence, "", width) for sentence in measured_on(summary)]
    return ["\n".join(lines)] if lines else []


def _text_grid(summary: Summary, answers: Sequence[Answer], width: int) -> Iterator[str]:
    """The answers by size and question, and below what is asked; nothing without answers."""
    shown = grid(summary, answers)
    if shown is None:
        return
    columns = [_padded(list(column)) for column in zip(shown.head, *shown.lines, strict=True)]
    for chunk in _fitting(columns[0], columns[1:], width):
        header, *lines = zip(columns[0], *chunk, strict=True)
        rule = ["─" * len(cell) for cell in header]
        yield "\n".join("  ".join(line).rstrip() for line in (header, rule, *lines))
    names = max(len(name) for name in shown.legend) if shown.legend else 0
    legend = [_wrap(text, f"{name:<{names}}  ", width) for name, text in shown.legend.items()]
    if legend:
        yield "\n".join(legend)


def _sentences(summary: Summary, answers: Sequence[Answer], width: int) -> Iterator[str]:
    """The sentences of each block."""
    for block in summary.begun:
        if block_answers := answers_on(block, answers):
            yield f"{_rule(summary, block, width)}\n{_text_answers(block_answers, width)}"


def _rule(summary: Summary, block: Block, width: int) -> str:
    return f"── {block.title or summary.suite} ".ljust(width, "─")


def not_begun(summary: Summary) -> str:
    """A sentence on the blocks without any measured case."""
    names = [block.title or summary.suite for block in summary.blocks if not block.begun]
    return f"Not measured yet: {'; '.join(names)}." if names else ""


def legend(summary: Summary, *, all_scores: bool = False) -> str:
    """What the signs mean that occur in these tables."""
    columns = [
        (table, column, line.cells[column.name])
        for block in summary.blocks
        for table in tables_shown(block, all_scores=all_scores)
        for column in columns_of(table, all_scores=all_scores)
        for line in table.lines
        if column.name in line.cells
    ]
    null_names = {_null_name(table, column) for table, column, cell in columns if cell.null}
    sentences = [
        f"± half-width, [ ] ends of the {100 * summary.level:g} % interval",
        "↑ higher or ↓ lower is better",
    ]
    if any(cell.floor for _, _, cell in columns):
        sentences.append("floor: the same score between two seeds of the larger size")
    if "null" in null_names:
        sentences.append("null: the same score of random directions")
    if "pca" in null_names:
        sentences.append("pca: as many principal components as the L0")
    if any(cell.lost and cell.estimate for _, _, cell in columns):
        sentences.append("*: fewer cases than planned")
    return f"{'; '.join(sentences)}."


def number(value: float, digits: int) -> str:
    """The value with `digits` decimals, without the zero before the point."""
    shown = f"{value:.{digits}f}"
    if not float(shown):
        shown = shown.lstrip("-")
    sign, size = ("-", shown[1:]) if shown.startswith("-") else ("", shown)
    return sign + (size[1:] if size.startswith("0.") else size)


def as_published(value: float, digits: int) -> str:
    """The value with the decimals it was published with, at most `digits`, padded with blanks."""
    text = repr(value)
    decimals = digits if "e" in text else min(digits, len(text.partition(".")[2]))
    return number(value, decimals) + " " * (digits - decimals + (digits > 0 and decimals == 0))


def tables_shown(block: Block, *, all_scores: bool) -> Iterator[Table]:
    """Tables to show; those shown as floors in another table only with all scores."""
    return (table for table in block.tables if table.begun and (all_scores or not table.is_floor))


def _is_about_shown(note: Note, block: Block) -> bool:
    """Whether a note is about a score that has a column in the compact tables."""
    shown = {
        (table.label, column.name)
        for table in tables_shown(block, all_scores=False)
        for column in table.headlines
    }
    return not note.scores or any(score in shown for score in note.scores)


def columns_of(table: Table, *, all_scores: bool) -> tuple[Score, ...]:
    """Columns to show, without those that have no number at all; the notes say why."""
    chosen = table.full if all_scores else table.headlines
    return tuple(
        column
        for column in chosen
        if any(
            (cell := line.cells.get(column.name)) and (cell.estimate or cell.status != "undefined")
            for line in table.lines
        )
    )


def _text_table(table: Table, *, all_scores: bool, width: int) -> str:
    columns = columns_of(table, all_scores=all_scores)
    layout = [
        (line, extra) for line in table.lines for extra in ("", *_extras(table, line, columns))
    ]
    titles = [f"  {extra}" if extra else line_title(line) for line, extra in layout]
    first = _padded([table.row_axis or "SAE", *titles])
    columns_shown = [_text_column(table, column, layout) for column in columns]
    parts = []
    for chunk in _fitting(first, columns_shown, width):
        header, *lines = zip(first, *chunk, strict=True)
        rule = ["─" * len(cell) for cell in header]
        parts.append("\n".join("  ".join(line).rstrip() for line in (header, rule, *lines)))
    head = _wrap(f"{title_of(table)}: {with_full_stop(table.about)}".removesuffix(": "), "", width)
    footer = (table.interval(columns), table.sources(columns))
    foot = "\n".join(_wrap(part, "", width) for part in footer if part)
    grid = "\n\n".join(parts) or "no score was measured"
    return "\n".join(part for part in (head, grid, foot) if part)


def _text_column(table: Table, column: Score, layout: Sequence[tuple[Line, str]]) -> list[str]:
    """The column's cells, header first, with the numbers right-aligned before their ±."""
    pairs = []
    for line, extra in layout:
        cell = line.cells.get(column.name)
        pairs.append(("", "") if cell is None else number_and_rest(table, column, cell, extra))
    number_width = max((len(number) for number, _ in pairs), default=0)
    cells = [number.rjust(number_width) + rest for number, rest in pairs]
    return _padded([heading(column), *cells])


def number_and_rest(table: Table, column: Score, cell: Cell, extra: str) -> tuple[str, str]:
    """A cell's number and what follows it; `extra` names a companion line instead."""
    if extra == "published":
        return (
            "" if cell.published is None else as_published(cell.published.value, column.digits)
        ), ""
    if extra:
        companion = dict(companions(table, column, cell)).get(extra)
        if companion is None:
            return "", ""
        spread = _spread(companion, column.digits) if extra == "floor" else ""
        return number(companion.value, column.digits), spread
    if cell.estimate is None:
        return ("failed" if cell.status == "failed" else "–"), ""
    star = "*" if cell.lost else ""
    if cell.estimate.kind == "values" and 2 <= len(cell.estimate.values) <= VALUES:
        first, *others = (number(value, column.digits) for value in cell.estimate.values)
        return first, "".join(f", {other}" for other in others) + star
    return (
        number(cell.estimate.value, column.digits),
        _spread(cell.estimate, column.digits) + star,
    )


def _extras(table: Table, line: Line, columns: Sequence[Score]) -> list[str]:
    """Names of the companion lines below a line: published values, floors and nulls."""
    names = set()
    for column in columns:
        cell = line.cells.get(column.name)
        if cell is not None:
            names |= {"published"} if cell.published else set()
            names |= {companion for companion, _ in companions(table, column, cell)}
    return [companion for companion in ("published", "pca", "floor", "null") if companion in names]


def companions(table: Table, column: Score, cell: Cell) -> Iterator[tuple[str, Estimate]]:
    if cell.floor is not None:
        yield "floor", cell.floor
    if cell.null is not None:
        yield _null_name(table, column), cell.null


def _null_name(table: Table, column: Score) -> str:
    """The name of the line of a null; principal components are a baseline, not a null."""
    return "pca" if (column.null or "").startswith("pca") else "null"


def _fitting(
    first: Sequence[str], columns: Sequence[list[str]], width: int
) -> Iterator[list[list[str]]]:
    """The columns in groups that fit the width next to the first column."""
    run: list[list[str]] = []
    used = len(first[0])
    for column in columns:
        if run and used + 2 + len(column[0]) > width:
            yield run
            run, used = [], len(first[0])
        run.append(column)
        used += 2 + len(column[0])
    if run:
        yield run


def _text_answers(answers: Sequence[Answer], width: int) -> str:
    parts = []
    before = ""
    names = max(len("complete?"), *(len(answer.question) for answer in answers))
    position_width = max(len(answer.position) for answer in answers)
    for answer in answers:
        question = "" if answer.question == before else answer.question
        before = answer.question
        indent = f"{question:<{names}}  {answer.position:<{position_width}}  "
        parts.append(_wrap(sentence(answer), indent, width))
    return "\n".join(parts)


def sentence(answer: Answer) -> str:
    """An answer's sentence, followed by its notes."""
    notes = "; ".join(answer.notes)
    return f"{answer.sentence} {notes[0].upper()}{notes[1:]}." if notes else answer.sentence


def note_sentence(note: Note) -> str:
    shown = "; ".join(note.subjects)
    if len(note.subjects) > SHOWN:
        shown = f"{note.subjects[0]} and {len(note.subjects) - 1} more"
    return f"{SIGNS.get(note.kind, note.kind)}: {note.reason} ({shown})"


def title_of(table: Table) -> str:
    version = f" v{table.version}" if table.version is not None else ""
    label = f' "{table.label}"' if table.label != table.metric else ""
    return f"{table.metric}{version}{label}"


def heading(column: Score) -> str:
    return column.name + ARROWS[column.better]


def line_title(line: Line) -> str:
    return line.title + (" †" if line.unfit else "") + (" ‡" if line.caveat else "")


def _spread(estimate: Estimate, digits: int) -> str:
    return "" if estimate.half_width is None else f" ± {number(estimate.half_width, digits)}"


def _padded(cells: Sequence[str]) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) for cell in cells]


def with_full_stop(sentence: str) -> str:
    return sentence if not sentence or sentence.endswith(".") else f"{sentence}."


def _wrap(sentence: str, indent: str, width: int) -> str:
    return textwrap.fill(
        sentence, width, initial_indent=indent, subsequent_indent=" " * len(indent)
    )
