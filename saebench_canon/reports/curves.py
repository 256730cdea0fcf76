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
ORPHANS_LENGTH = 0.06  # of a step: orphans are dropped all at once and insert nothing
MOST = 50  # points of a phase, at most
Points = NDArray[np.float64]
Grid = Mapping[str, Points]  # the x of each phase's points on one step of a ladder


@dataclass(frozen=True, eq=False)
class Curves:
    """The curves of one ordering: one line per seed and order, [lines, points]; NaN: no path."""

    mse: Points
    l0: Points


@dataclass(frozen=True, eq=False)
class Panel:
    """The paths of one ladder.

    Along `x` [points], the SAEs are at whole numbers. Between two of them, the share of the larger
    one's live latents that are inserted grows from 0 to 1; the length of each phase is its mean
    over seeds. MSE is relative to the smallest SAE of the same seed.
    """

    ladder: Ladder
    sizes: tuple[object, ...]
    x: Points
    phases: tuple[tuple[str, float, float], ...]  # name, x of its start, x of its end
    orders: Mapping[str, Curves]
    smallest: float  # MSE of the smallest SAE, mean over seeds
    seeds: int
    pairs_without_path: int


def panel(ladder: Ladder) -> Panel | None:
    """The curves of a ladder; None where no pair has a path."""
    steps = list(pairwise(ladder.sizes))
    paths_by_step: dict[tuple[object, object], dict[Run, pd.DataFrame]] = {
        step: {} for step in steps
    }
    for climb in ladder.climbs:
        if climb.path is not None:
            paths_by_step[climb.small, climb.large][climb.run] = climb.path
    while steps and not paths_by_step[steps[0]]:
        steps = steps[1:]
    base = (
        {run: float(path["mse"].iloc[0]) for run, path in paths_by_step[steps[0]].items()}
        if steps
        else {}
    )
    base = {run: mse for run, mse in base.items() if mse > 0}
    if not base:
        return None
    paths = [
        {run: path for run, path in paths_by_step[step].items() if run in base} for step in steps
    ]
    grids = [_grid(step, list(paths_of_step.values())) for step, paths_of_step in enumerate(paths)]
    return Panel(
        ladder=ladder,
        sizes=(steps[0][0], *(large for _, large in steps)),
        x=np.concatenate([points for grid in grids for points in grid.values()]),
        phases=tuple((p, float(x[0]), float(x[-1])) for grid in grids for p, x in grid.items()),
        orders=_curves(paths, grids, base),
        smallest=float(np.mean(list(base.values()))),
        seeds=len({seed for seed, _ in base}),
        pairs_without_path=len(ladder.climbs) - sum(map(len, paths)),
    )


def _curves(
    paths: Sequence[Mapping[Run, pd.DataFrame]], grids: Sequence[Grid], base: Mapping[Run, float]
) -> dict[str, Curves]:
    """The lines of each ordering along the whole ladder."""
    lengths = [sum(map(len, grid.values())) for grid in grids]
    lines: dict[str, dict[tuple[Run, int], Points]] = defaultdict(dict)  # [mse and l0, points]
    for step, (paths_of_step, grid) in enumerate(zip(paths, grids, strict=True)):
        start = sum(lengths[:step])
        for run, path in paths_of_step.items():
            for (order, number), walk in _walks(path):
                line = lines[order].setdefault((run, number), np.full((2, sum(lengths)), np.nan))
                values = np.stack([_on_grid(walk, "mse", grid), _on_grid(walk, "l0", grid)])
                values[0] /= base[run]
                line[:, start : start + lengths[step]] = values
    stacked = {order: np.stack(list(curves.values()), axis=1) for order, curves in lines.items()}
    return {order: Curves(mse, l0) for order, (mse, l0) in stacked.items()}


def _walks(path: pd.DataFrame) -> Iterator[tuple[tuple[str, int], pd.DataFrame]]:
    """The path in each of its orders, by the name and the seed of the ordering."""
    for key in dict.fromkeys(zip(path["order"], path["seed"], strict=True)):
        yield key, path[(path["order"] == key[0]) & (path["seed"] == key[1])]


def _grid(step: int, paths: Sequence[pd.DataFrame]) -> dict[str, Points]:
    """The points of each phase on one step of a ladder, at most MOST + 1 of them."""
    weights = [_weights(next(_walks(path))[1]) for path in paths]  # the same in every order
    phases = [
        phase for phase in PHASES if any(phase in weights_of_path for weights_of_path in weights)
    ]
    orphans_length = ORPHANS_LENGTH if "orphans" in phases else 0.0
    grid: dict[str, Points] = {}
    start = float(step)
    for phase in phases:
        shares = [
            weights_of_path[phase].sum()
            / sum(w.sum() for p, w in weights_of_path.items() if p != "orphans")
            for weights_of_path in weights
            if phase in weights_of_path and phase != "orphans"
        ]
        length = (
            orphans_length
            if phase == "orphans"
            else (1 - orphans_length) * sum(shares) / len(weights)
        )
        count = min(
            MOST,
            max(
                len(weights_of_path[phase])
                for weights_of_path in weights
                if phase in weights_of_path
            ),
        )
        end = step + 1.0 if phase == phases[-1] else start + float(length)
        grid[phase] = np.linspace(start, end, count + 1)
        start = end
    return grid


def _weights(walk: pd.DataFrame) -> dict[str, Points]:
    """How many latents each step of a phase inserts; a step that only drops some counts as one."""
    inserted = np.maximum(walk["latents_in"].map(len).to_numpy(dtype=np.float64), 1.0)
    phases = walk["phase"].to_numpy()
    return {phase: inserted[phases == phase] for phase in PHASES if (phases == phase).any()}


def _on_grid(walk: pd.DataFrame, column: str, grid: Grid) -> Points:
    """A path's values at the points of a step, interpolated linearly."""
    values, phases = walk[column].to_numpy(dtype=np.float64), walk["phase"].to_numpy()
    weights = _weights(walk)
    last, segments = values[0], []
    for phase, x in grid.items():
        points = np.concatenate([[last], values[phases == phase]])
        positions = np.concatenate([[0.0], np.cumsum(weights.get(phase, np.zeros(0)))])
        along = np.linspace(0, 1, len(x))
        segments.append(np.interp(along, positions / (positions[-1] or 1.0), points))
        last = points[-1]
    return np.concatenate(segments)


def middle(lines: Points) -> Points:
    """The mean of the lines at each point, NaN left out, [points]."""
    return np.asarray(np.ma.masked_invalid(lines).mean(axis=0).filled(np.nan), dtype=np.float64)


def extremes(lines: Points) -> tuple[Points, Points]:
    """The lowest and the highest of the lines at each point, [points] each."""
    known = np.ma.masked_invalid(lines)
    low, high = known.min(axis=0).filled(np.nan), known.max(axis=0).filled(np.nan)
    return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)


def joints(drawn: Panel) -> Iterator[tuple[int, float, float]]:
    """Each SAE of a ladder: its position along x, its relative MSE and its L0, mean over seeds."""
    every = list(drawn.orders.values())
    mse = middle(np.concatenate([curves.mse for curves in every]))
    l0 = middle(np.concatenate([curves.l0 for curves in every]))
    for position in range(len(drawn.sizes)):
        at_position = (np.abs(drawn.x - position) < 1e-9) & ~np.isnan(mse)
        if at_position.any():
            yield position, float(mse[at_position][0]), float(l0[at_position][0])
