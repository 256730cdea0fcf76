"""How the paths of a ladder's pairs become one curve, comparable between seeds and orders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saebench_canon.reports.ladders import Ladder, Run

PHASES = ("novel", "swap", "orphans")
ROOM = 0.06  # of a step for latents that all go at once: they insert nothing
MOST = 50  # points of a phase
Points = NDArray[np.float64]
Grid = Mapping[str, Points]  # the x of each phase's points on one step of a ladder


@dataclass(frozen=True, eq=False)
class Curves:
    """What one ordering gave: a line for each seed and order, [lines, points]; NaN is no path."""

    mse: Points
    l0: Points


@dataclass(frozen=True, eq=False)
class Panel:
    """The paths of one ladder.

    Along `x` [points] the SAEs stand at whole numbers. Between two of them the share of the
    larger one's live latents that are inserted grows from 0 to 1, each phase as long as it is in
    the mean over seeds. MSE is relative to the smallest SAE of the same seed.
    """

    ladder: Ladder
    sizes: tuple[object, ...]
    x: Points
    phases: tuple[tuple[str, float, float], ...]  # with the x where each begins and ends
    orders: Mapping[str, Curves]
    smallest: float  # MSE of the smallest SAE, mean over seeds
    seeds: int
    blank: int  # pairs that have no path


def panel(ladder: Ladder) -> Panel | None:
    """The curves of a ladder; None where no pair has a path."""
    steps = list(pairwise(ladder.sizes))
    at: dict[tuple[object, object], dict[Run, pd.DataFrame]] = {step: {} for step in steps}
    for climb in ladder.climbs:
        if climb.path is not None:
            at[climb.small, climb.large][climb.run] = climb.path
    while steps and not at[steps[0]]:
        steps = steps[1:]
    base = {run: float(path["mse"].iloc[0]) for run, path in at[steps[0]].items()} if steps else {}
    base = {run: mse for run, mse in base.items() if mse > 0}
    if not base:
        return None
    paths = [{run: path for run, path in at[step].items() if run in base} for step in steps]
    grids = [_grid(place, list(each.values())) for place, each in enumerate(paths)]
    return Panel(
        ladder=ladder,
        sizes=(steps[0][0], *(large for _, large in steps)),
        x=np.concatenate([each for grid in grids for each in grid.values()]),
        phases=tuple((p, float(x[0]), float(x[-1])) for grid in grids for p, x in grid.items()),
        orders=_curves(paths, grids, base),
        smallest=float(np.mean(list(base.values()))),
        seeds=len({seed for seed, _ in base}),
        blank=len(ladder.climbs) - sum(map(len, paths)),
    )


def _curves(
    paths: Sequence[Mapping[Run, pd.DataFrame]], grids: Sequence[Grid], base: Mapping[Run, float]
) -> dict[str, Curves]:
    """Each ordering's lines along the whole ladder."""
    lengths = [sum(map(len, grid.values())) for grid in grids]
    lines: dict[str, dict[tuple[Run, int], Points]] = defaultdict(dict)  # [mse and l0, points]
    for place, (each, grid) in enumerate(zip(paths, grids, strict=True)):
        start = sum(lengths[:place])
        for run, path in each.items():
            for (order, number), walk in _walks(path):
                line = lines[order].setdefault((run, number), np.full((2, sum(lengths)), np.nan))
                found = np.stack([_on_grid(walk, "mse", grid), _on_grid(walk, "l0", grid)])
                found[0] /= base[run]
                line[:, start : start + lengths[place]] = found
    stacked = {order: np.stack(list(each.values()), axis=1) for order, each in lines.items()}
    return {order: Curves(mse, l0) for order, (mse, l0) in stacked.items()}


def _walks(path: pd.DataFrame) -> Iterator[tuple[tuple[str, int], pd.DataFrame]]:
    """A path in each of its orders, by the ordering's name and its number."""
    for key in dict.fromkeys(zip(path["order"], path["seed"], strict=True)):
        yield key, path[(path["order"] == key[0]) & (path["seed"] == key[1])]


def _grid(place: int, paths: Sequence[pd.DataFrame]) -> dict[str, Points]:
    """The points of each phase on one step of a ladder, at most MOST and one of them."""
    weights = [_weights(next(_walks(path))[1]) for path in paths]  # alike in every order
    phases = [phase for phase in PHASES if any(phase in each for each in weights)]
    room = ROOM if "orphans" in phases else 0.0
    grid: dict[str, Points] = {}
    start = float(place)
    for phase in phases:
        shares = [
            each[phase].sum() / sum(w.sum() for p, w in each.items() if p != "orphans")
            for each in weights
            if phase in each and phase != "orphans"
        ]
        length = room if phase == "orphans" else (1 - room) * sum(shares) / len(weights)
        count = min(MOST, max(len(each[phase]) for each in weights if phase in each))
        end = place + 1.0 if phase == phases[-1] else start + float(length)
        grid[phase] = np.linspace(start, end, count + 1)
        start = end
    return grid


def _weights(walk: pd.DataFrame) -> dict[str, Points]:
    """How many latents each step of a phase inserts; a step that only drops some counts as one."""
    inserted = np.maximum(walk["latents_in"].map(len).to_numpy(dtype=np.float64), 1.0)
    phases = walk["phase"].to_numpy()
    return {phase: inserted[phases == phase] for phase in PHASES if (phases == phase).any()}


def _on_grid(walk: pd.DataFrame, column: str, grid: Grid) -> Points:
    """A path's values at the points of a step, linear between the path's own."""
    values, phases = walk[column].to_numpy(dtype=np.float64), walk["phase"].to_numpy()
    weights = _weights(walk)
    last, found = values[0], []
    for phase, x in grid.items():
        own = np.concatenate([[last], values[phases == phase]])
        places = np.concatenate([[0.0], np.cumsum(weights.get(phase, np.zeros(0)))])
        along = np.linspace(0, 1, len(x))
        found.append(np.interp(along, places / (places[-1] or 1.0), own))
        last = own[-1]
    return np.concatenate(found)


def middle(lines: Points) -> Points:
    """The mean of the lines at each point, of those that are there, [points]."""
    return np.asarray(np.ma.masked_invalid(lines).mean(axis=0).filled(np.nan), dtype=np.float64)


def extremes(lines: Points) -> tuple[Points, Points]:
    """The lowest and the highest of the lines at each point, [points] each."""
    known = np.ma.masked_invalid(lines)
    low, high = known.min(axis=0).filled(np.nan), known.max(axis=0).filled(np.nan)
    return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)


def joints(drawn: Panel) -> Iterator[tuple[int, float, float]]:
    """Each SAE of a ladder: its place along x, its relative MSE and its L0, mean over seeds."""
    every = list(drawn.orders.values())
    mse = middle(np.concatenate([each.mse for each in every]))
    l0 = middle(np.concatenate([each.l0 for each in every]))
    for place in range(len(drawn.sizes)):
        here = (np.abs(drawn.x - place) < 1e-9) & ~np.isnan(mse)
        if here.any():
            yield place, float(mse[here][0]), float(l0[here][0])
