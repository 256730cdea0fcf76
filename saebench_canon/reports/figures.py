"""Figures as files: a run's paths, from each SAE to the next larger one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saebench_canon.errors import CanonError
from saebench_canon.plugin.metric import Metric, with_role
from saebench_canon.plugin.report import Report, Tables
from saebench_canon.plugin.row import Row

LOOK: Any = {
    "font.family": "sans-serif", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "figure.titlesize": 9,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "hatch.linewidth": 0.4, "hatch.color": "#808080", "savefig.dpi": 200,
    "svg.fonttype": "none", "svg.hashsalt": "saebench-canon", "pdf.fonttype": 42,
}  # fmt: skip
UNDATED = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def _write(rows: Sequence[Row], metrics: Sequence[Metric], path: Path, *, tables: Tables) -> None:
    """Draw a run's paths; equal runs give equal files."""
    from saebench_canon.reports.curves import panel
    from saebench_canon.reports.ladders import ladders

    drawn = [
        panel_ for ladder in ladders(rows, metrics, tables) if (panel_ := panel(ladder)) is not None
    ]
    if not drawn:
        raise CanonError(
            "there is nothing to draw: the run has no path from an SAE to a larger one",
            where=str(path),
            hint=_who_follows(metrics),
        )
    from matplotlib import rc_context, rcdefaults

    from saebench_canon.reports.drawing import figure

    with rc_context():
        rcdefaults()  # whatever the user's own settings are
        with rc_context(LOOK):
            figure(drawn, rows[0].suite).savefig(path, metadata=UNDATED.get(path.suffix))


def _who_follows(metrics: Sequence[Metric]) -> str:
    names = " or ".join(f"`{metric.name}`" for metric in with_role("path", metrics))
    where = "over pairs of widths and on SAEs that have data"
    return f"{names} makes paths, {where}." if names else "No metric here makes paths."


FIGURES = tuple(
    Report(suffix, _write, "a figure of the paths along each ladder of sizes", reads_tables=True)
    for suffix in (".png", ".svg", ".pdf")
)
