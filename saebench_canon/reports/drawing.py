"""How the paths of a run are drawn: one panel per ladder, MSE above and L0 below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from saebench_canon.reports.curves import Curves, Panel, extremes, joints, middle
from saebench_canon.reports.ladders import titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Style = dict[str, Any]  # keyword arguments of matplotlib

BAND_FROM = 3  # training seeds; with fewer, every line is drawn
SHARED_TO = 4.0  # panels share one scale if their ranges differ by at most this factor
WIDTH = {1: 3.5, 2: 5.4, 3: 7.2}  # inches by number of panel columns
LETTERS = 15  # per inch
BOLD_LETTERS = 14  # per inch
STYLES: dict[str, tuple[str, Any, str]] = {  # Okabe and Ito's colours; dashes for grey print
    "random": ("#0072B2", "-", "random order"),
    "max_cos": ("#D55E00", (0, (4, 1.5)), "farthest first (max_cos)"),
    "greedy": ("#000000", (0, (1, 1.2)), "lowest error next (greedy)"),
}
OTHER: tuple[str, Any] = ("#009E73", "-.")
PHASES: dict[str, tuple[Style, str]] = {
    "novel": ({"facecolor": "#e6e6e6"}, "new latents are added"),
    "swap": ({"facecolor": "#ffffff"}, "others replace their like"),
    "orphans": ({"facecolor": "#ffffff", "hatch": "//////"}, "what has no like is dropped"),
}
MARK: Style = {
    "marker": "o", "markersize": 4, "color": "white", "markeredgecolor": "black",
    "markeredgewidth": 0.9, "linestyle": "none", "zorder": 5, "clip_on": False,
}  # fmt: skip


def figure(drawn: Sequence[Panel], suite: str) -> Figure:
    """One figure with a panel per ladder: MSE above, L0 below, the SAEs at the joints."""
    columns = 2 if len(drawn) == 4 else min(len(drawn), 3)
    lines = -(-len(drawn) // columns)
    handles = list(_legend(drawn))
    legend_lines = -(-len(handles) // min(columns, 2))
    drawing = Figure(
        figsize=(WIDTH[columns], 0.4 + 2.9 * lines + 0.16 * legend_lines), layout="constrained"
    )
    grid = drawing.subplots(2 * lines, columns, squeeze=False, height_ratios=[2.2, 1] * lines)
    names = titles([panel.ladder for panel in drawn])
    cells = [divmod(index, columns) for index in range(lines * columns)]
    for (line, column), panel, name in zip(cells, drawn, names, strict=False):
        upper, lower = grid[2 * line : 2 * line + 2, column]
        _draw(upper, panel, "mse")
        _draw(lower, panel, "l0")
        upper.set_xticklabels([])
        _name(
            upper, panel, textwrap.fill(name, int((WIDTH[columns] / columns - 0.5) * BOLD_LETTERS))
        )
        _size(
            lower,
            panel,
            WIDTH[columns] / columns,
            last=line * columns + column + columns >= len(drawn),
        )
        if column == 0:
            upper.set_ylabel("MSE, relative to\nthe smallest SAE's")
            lower.set_ylabel("L0 (active\nper token)")
    for line, column in cells[len(drawn) :]:
        for axes in grid[2 * line : 2 * line + 2, column]:
            axes.remove()
    for first in (0, 1):
        _share([grid[2 * line + first, column] for line, column in cells[: len(drawn)]])
    drawing.align_ylabels()
    title = f"{suite}: error and L0 on the way from each SAE to the next larger one"
    letters = int(WIDTH[columns] * LETTERS)
    drawing.suptitle(textwrap.fill(title, letters), x=0.01, ha="left")
    drawing.legend(
        handles=handles, loc="outside lower left", ncols=min(columns, 2), frameon=False,
        handlelength=2.6, title=_left_out(drawn), alignment="left", title_fontsize=7,
    )  # fmt: skip
    return drawing


def _draw(axes: Axes, panel: Panel, name: str) -> None:
    """One quantity along one ladder."""
    for phase, start, end in panel.phases:
        axes.axvspan(start, end, linewidth=0, zorder=0, **PHASES[phase][0])
    for order, curves in panel.orders.items():
        _lines(axes, panel, order, curves, name)
    for position, mse, l0 in joints(panel):
        axes.axvline(position, color="black", linewidth=0.5, zorder=1)
        axes.plot(position, mse if name == "mse" else l0, **MARK)
    axes.set_xlim(-0.04, len(panel.sizes) - 0.96)
    axes.set_xticks(range(len(panel.sizes)))
    axes.locator_params(axis="y", nbins=5)
    axes.spines[["top", "right"]].set_visible(False)


def _style(order: str) -> tuple[str, Any, str]:
    return STYLES.get(order, (*OTHER, order))


def _lines(axes: Axes, panel: Panel, order: str, curves: Curves, name: str) -> None:
    """One ordering: the mean over lines, with a band if there are enough seeds."""
    color, dashes, _ = _style(order)
    lines = curves.mse if name == "mse" else curves.l0
    main = order == "random"
    drawn: Style = {"color": color, "linestyle": dashes, "zorder": 4 if main else 3}
    if not _banded(panel):
        for line in lines:
            axes.plot(panel.x, line, linewidth=0.8, alpha=0.7 if main else 1.0, **drawn)
        return
    axes.plot(panel.x, middle(lines), linewidth=1.3 if main else 0.9, **drawn)
    if main:
        low, high = extremes(lines)
        axes.fill_between(panel.x, low, high, color=color, alpha=0.3, linewidth=0, zorder=2)


def _banded(panel: Panel) -> bool:
    """Whether there are enough seeds for a mean and a band."""
    return panel.seeds >= BAND_FROM and panel.ladder.of_seeds


def _name(axes: Axes, panel: Panel, title: str) -> None:
    """The panel's title: the ladder, the number of seeds and orders, the MSE that counts as 1."""
    random = panel.orders.get("random")
    orders = 0 if random is None else len(random.mse) // panel.seeds
    counted = _count(panel.seeds, "seed")
    if not panel.ladder.of_seeds:
        counted = f"{_count(panel.seeds, 'SAE')} a size, no seeds of one another"
    counted += f" × {_count(orders, 'random order')}" if orders else ""
    caption = f"{counted}\n1 is an MSE of {panel.smallest:#.3g}"
    axes.set_title(title, loc="left", fontweight="bold", pad=20)
    axes.text(0, 1.02, caption, transform=axes.transAxes, fontsize=7, va="bottom", linespacing=1.1)


def _size(axes: Axes, panel: Panel, width: float, *, last: bool) -> None:
    """The tick labels: the sizes of the SAEs; below the last row also the axis label."""
    sizes = [f"{size:,}" for size in panel.sizes]
    slant = sum(map(len, sizes)) > 9 * width
    axes.set_xticklabels(sizes, rotation=45 if slant else 0, ha="right" if slant else "center")
    if last:
        label = f"{panel.ladder.axis} (in between: share of latents inserted)"
        axes.set_xlabel(textwrap.fill(label, int((width - 0.5) * LETTERS)))


def _share(panels: Sequence[Axes]) -> None:
    """Give all panels one scale, unless that would flatten one of them."""
    limits = [axes.get_ylim() for axes in panels]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    if high - low <= SHARED_TO * min(top - bottom for bottom, top in limits):
        for axes in panels:
            axes.set_ylim(low, high)


def _legend(drawn: Sequence[Panel]) -> Iterator[Any]:
    banded = any(map(_banded, drawn))
    for order in dict.fromkeys(order for panel in drawn for order in panel.orders):
        color, dashes, label = _style(order)
        label += ", mean" if banded else ""
        yield Line2D([], [], color=color, linestyle=dashes, linewidth=1.2, label=label)
        if order == "random" and banded:
            label = "its lowest to highest, of all orders and seeds"
            yield Patch(color=color, alpha=0.3, linewidth=0, label=label)
    yield Line2D([], [], label="the SAEs themselves", **MARK)
    phases = {phase for panel in drawn for phase, _, _ in panel.phases}
    for phase, (fill, label) in PHASES.items():
        if phase in phases:
            yield Patch(edgecolor="#808080", linewidth=0.5, label=f"{phase}: {label}", **fill)


def _left_out(drawn: Iterable[Panel]) -> str | None:
    missing = sum(panel.pairs_without_path for panel in drawn)
    return f"left out for want of a path: {_count(missing, 'pair')} of SAEs" if missing else None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
