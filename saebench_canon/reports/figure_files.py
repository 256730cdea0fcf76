"""Figures as files: the paths of a run, from each SAE to the next larger one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from saebench_canon.errors import CanonError, one_line
from saebench_canon.plugin.metric import Metric, with_role
from saebench_canon.plugin.report import Report, Tables
from saebench_canon.plugin.row import Row
from saebench_canon.reports.safe_text import on_lines

STYLE: Any = {
    "font.family": "sans-serif", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "figure.titlesize": 9,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "hatch.linewidth": 0.4, "hatch.color": "#808080", "savefig.dpi": 200,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none", "svg.hashsalt": "saebench-canon", "pdf.fonttype": 42,
}  # fmt: skip
UNDATED = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def _write(rows: Sequence[Row], metrics: Sequence[Metric], path: Path, *, tables: Tables) -> None:
    """Draw the paths of a run; equal runs give equal files."""
    from saebench_canon.reports.curves import panel
    from saebench_canon.reports.ladders import find_ladders

    drawn = [
        panel_
        for ladder in find_ladders(on_lines(rows), metrics, tables)
        if (panel_ := panel(ladder)) is not None
    ]
    if not drawn:
        raise CanonError(
            "there is nothing to draw: the run has no path from an SAE to a larger one",
            where=str(path),
            hint=_metrics_with_paths(metrics),
        )
    with _without_backend():
        from matplotlib import rc_context, rcdefaults

        from saebench_canon.reports.drawing import figure

    with rc_context():
        rcdefaults()  # not the user's own settings
        with rc_context(STYLE):
            drawing = BytesIO()  # matplotlib may hide that a disk is full
            figure(drawn, one_line(rows[0].suite)).savefig(
                drawing, format=path.suffix[1:], metadata=UNDATED.get(path.suffix)
            )
    path.write_bytes(drawing.getvalue())


@contextmanager
def _without_backend() -> Iterator[None]:
    """Import matplotlib without the backend that a notebook sets and this process may lack."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def _metrics_with_paths(metrics: Sequence[Metric]) -> str:
    names = " or ".join(f"`{metric.name}`" for metric in with_role("path", metrics))
    return (
        f"{names} makes paths, over pairs of widths and on SAEs that have data."
        if names
        else "No metric here makes paths."
    )


FIGURES = tuple(
    Report(suffix, _write, "a figure of the paths along each ladder of sizes", reads_tables=True)
    for suffix in (".png", ".svg", ".pdf")
)
