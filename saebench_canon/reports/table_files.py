"""Tables as files: Markdown, CSV, Parquet, HTML and plain text; figures are in `figure_files`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.question import Answer
from saebench_canon.plugin.report import Report
from saebench_canon.plugin.row import Row
from saebench_canon.reports.figure_files import FIGURES


def _write(
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    path: Path,
    *,
    answers: Sequence[Answer] = (),
) -> None:
    from saebench_canon.reports.table_formats import write
    from saebench_canon.tables.summarise import summarise

    write(summarise(rows, metrics), path, answers)


REPORTS = (
    Report(
        ".md", _write, "tables with every score, null and floor, and the answers",
        reads_answers=True,
    ),
    Report(".html", _write, "the same as one page", reads_answers=True),
    Report(".txt", _write, "tables and answers as the terminal shows them", reads_answers=True),
    Report(".csv", _write, "one row per score: value, half-width, null, floor, n"),
    Report(".parquet", _write, "the same for programs"),
    *FIGURES,
)  # fmt: skip
