"""How the paths of a run are drawn: a panel a ladder, MSE above and L0 below."""

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

Look = dict[str, Any]  # what matplotlib calls keywords

BAND_FROM = 3  # training seeds: with fewer, each line is drawn by itself
SHARED_TO = 4.0  # ratio of panels' ranges up to which they share one scale
WIDE = {1: 3.5, 2: 5.4, 3: 7.2}  # inches, by columns: one column of a paper, or two
LETTERS = 15  # to an inch
BOLD = 14
STYLES: dict[str, tuple[str, Any, str]] = {  # Okabe and Ito's colours, and dashes to tell them by
    "random": ("#0072B2", "-", "random order"),
    "max_cos": ("#D55E00", (0, (4, 1.5)), "farthest first (max_cos)"),
    "greedy": ("#000000", (0, (1, 1.2)), "lowest error next (greedy)"),
}
OTHER: tuple[str, Any] = ("#009E73", "-.")
PHASES: dict[str, tuple[Look, str]] = {
    "novel": ({"facecolor": "#e6e6e6"}, "new latents are added"),
    "swap": ({"facecolor": "#ffffff"}, "others replace their like"),
    "orphans": ({"facecolor": "#ffffff", "hatch": "//////"}, "what has no like is dropped"),
}
MARK: Look = {
    "marker": "o", "markersize": 4, "color": "white", "markeredgecolor": "black",
    "markeredgewidth": 0.9, "linestyle": "none", "zorder": 5, "clip_on": False,
}  # fmt: skip


def figure(drawn: Sequence[Panel], suite: str) -> Figure:
    """One figure with a panel a ladder: MSE above, L0 below, the SAEs at the joints."""
    columns = 2 if len(drawn) == 4 else min(len(drawn), 3)
    lines = -(-len(drawn) // columns)
    handles = list(_legend(drawn))
    below = -(-len(handles) // min(columns, 2))
    made = Figure(figsize=(WIDE[columns], 0.4 + 2.9 * lines + 0.16 * below), layout="constrained")
    grid = made.subplots(2 * lines, columns, squeeze=False, height_ratios=[2.2, 1] * lines)
    names = titles([each.ladder for each in drawn])
    places = [divmod(place, columns) for place in range(lines * columns)]
    for (line, column), each, name in zip(places, drawn, names, strict=False):
        upper, lower = grid[2 * line : 2 * line + 2, column]
        _draw(upper, each, "mse")
        _draw(lower, each, "l0")
        upper.set_xticklabels([])
        _name(upper, each, textwrap.fill(name, int((WIDE[columns] / columns - 0.5) * BOLD)))
        _size(
            lower,
            each,
            WIDE[columns] / columns,
            last=line * columns + column + columns >= len(drawn),
        )
        if column == 0:
            upper.set_ylabel("MSE, relative to\nthe smallest SAE's")
            lower.set_ylabel("L0 (active\nper token)")
    for line, column in places[len(drawn) :]:
        for axes in grid[2 * line : 2 * line + 2, column]:
            axes.remove()
    for first in (0, 1):
        _share([grid[2 * line + first, column] for line, column in places[: len(drawn)]])
    made.align_ylabels()
    said = f"{suite}: error and L0 on the way from each SAE to the next larger one"
    wide = int(WIDE[columns] * LETTERS)
    made.suptitle(textwrap.fill(said, wide), x=0.01, ha="left")
    made.legend(
        handles=handles, loc="outside lower left", ncols=min(columns, 2), frameon=False,
        handlelength=2.6, title=_left_out(drawn), alignment="left", title_fontsize=7,
    )  # fmt: skip
    return made


def _draw(axes: Axes, each: Panel, name: str) -> None:
    """One quantity along one ladder."""
    for phase, start, end in each.phases:
        axes.axvspan(start, end, linewidth=0, zorder=0, **PHASES[phase][0])
    for order, curves in each.orders.items():
        _lines(axes, each, order, curves, name)
    for place, mse, l0 in joints(each):
        axes.axvline(place, color="black", linewidth=0.5, zorder=1)
        axes.plot(place, mse if name == "mse" else l0, **MARK)
    axes.set_xlim(-0.04, len(each.sizes) - 0.96)
    axes.set_xticks(range(len(each.sizes)))
    axes.locator_params(axis="y", nbins=5)
    axes.spines[["top", "right"]].set_visible(False)


def _style(order: str) -> tuple[str, Any, str]:
    return STYLES.get(order, (*OTHER, order))


def _lines(axes: Axes, each: Panel, order: str, curves: Curves, name: str) -> None:
    """An ordering: the mean over lines, with a band where there are seeds enough for one."""
    color, dashes, _ = _style(order)
    lines = curves.mse if name == "mse" else curves.l0
    main = order == "random"
    drawn: Look = {"color": color, "linestyle": dashes, "zorder": 4 if main else 3}
    if each.seeds < BAND_FROM:
        for line in lines:
            axes.plot(each.x, line, linewidth=0.8, alpha=0.7 if main else 1.0, **drawn)
        return
    axes.plot(each.x, middle(lines), linewidth=1.3 if main else 0.9, **drawn)
    if main:
        low, high = extremes(lines)
        axes.fill_between(each.x, low, high, color=color, alpha=0.3, linewidth=0, zorder=2)


def _name(axes: Axes, each: Panel, title: str) -> None:
    """Which ladder this is, how many lines are behind it, and what its MSE is relative to."""
    random = each.orders.get("random")
    orders = 0 if random is None else len(random.mse) // each.seeds
    counted = _count(each.seeds, "seed")
    counted += f" × {_count(orders, 'random order')}" if orders else ""
    told = f"{counted}\n1 is an MSE of {each.smallest:#.3g}"
    axes.set_title(title, loc="left", fontweight="bold", pad=20)
    axes.text(0, 1.02, told, transform=axes.transAxes, fontsize=7, va="bottom", linespacing=1.1)


def _size(axes: Axes, each: Panel, wide: float, *, last: bool) -> None:
    """The sizes of the SAEs below the joints, and what lies between them."""
    sizes = [f"{size:,}" for size in each.sizes]
    slant = sum(map(len, sizes)) > 9 * wide
    axes.set_xticklabels(sizes, rotation=45 if slant else 0, ha="right" if slant else "center")
    if last:
        said = f"{each.ladder.axis} (in between: share of latents inserted)"
        axes.set_xlabel(textwrap.fill(said, int((wide - 0.5) * LETTERS)))


def _share(panels: Sequence[Axes]) -> None:
    """One scale for all panels, unless it would flatten one of them."""
    limits = [axes.get_ylim() for axes in panels]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    if high - low <= SHARED_TO * min(top - bottom for bottom, top in limits):
        for axes in panels:
            axes.set_ylim(low, high)


def _legend(drawn: Sequence[Panel]) -> Iterator[Any]:
    banded = any(each.seeds >= BAND_FROM for each in drawn)
    for order in dict.fromkeys(order for each in drawn for order in each.orders):
        color, dashes, said = _style(order)
        said += ", mean" if banded else ""
        yield Line2D([], [], color=color, linestyle=dashes, linewidth=1.2, label=said)
        if order == "random" and banded:
            said = "its lowest to highest, of all orders and seeds"
            yield Patch(color=color, alpha=0.3, linewidth=0, label=said)
    yield Line2D([], [], label="the SAEs themselves", **MARK)
    here = {phase for each in drawn for phase, _, _ in each.phases}
    for phase, (fill, said) in PHASES.items():
        if phase in here:
            yield Patch(edgecolor="#808080", linewidth=0.5, label=f"{phase}: {said}", **fill)


def _left_out(drawn: Iterable[Panel]) -> str | None:
    blank = sum(each.blank for each in drawn)
    return f"left out for want of a path: {_count(blank, 'pair')} of SAEs" if blank else None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
