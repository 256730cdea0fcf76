"""The first half of docs/calibration.md: what each score and answer says on worlds that are known.

    saebench-canon run calibration -n 2 --store STORE
    python tests/calibration_page.py --store STORE

It reads the run of the packaged suite `calibration` and writes the page between its markers.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from clone import DOCS
from generated_part import put
from scipy.stats import rankdata

from saebench_canon.plugin.registry import load_registry

PAGE = DOCS / "calibration.md"
BEGIN, END = "<!-- of the suite calibration -->\n", "<!-- end -->\n"
FOUND, NEAR = 0.9, 0.7
MISSING, COMPOSED, SAME = 0.05, 0.10, 0.9  # from where the truth is a "no", or "the same"
DRAWS = 500  # of the bootstrap
LEAST, ENOUGH = 3, 10  # subjects of a stratum, and of all strata, so that ranks say something
CLOSE, APART = 0.02, 0.10  # explained variance of a set, and recovery that differs in it
# which SAE of a pair a metric's scores are about
ABOUT = {"stitching": 0, "composition": 1, "comparison": 0, "insertion": 0}
TRUTHS = ("recovery_centred", "precision_centred")
Row = dict[str, Any]


def program(*words: str, store: str) -> Any:
    """What `show` prints as JSON."""
    command = [sys.executable, "-m", "saebench_canon", "show", "calibration", "--json", *words]
    done = subprocess.run([*command, "--store", store], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Point:
    """One subject of a score: its value, the truth of the SAE it is about, and where it stands."""

    value: float
    truth: Mapping[str, float]
    world: str
    size: str
    start: str


@dataclass(frozen=True)
class Correlation:
    """A rank correlation with its 95 % interval over starts."""

    rho: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        if math.isnan(self.low):
            return number(self.rho)
        return f"{number(self.rho)} [{number(self.low)}, {number(self.high)}]"


def between(part: float, whole: float) -> float:
    """A share; nan of nothing."""
    return float(part / whole) if whole else math.nan


def number(value: float) -> str:
    """Two decimals, without the zero before the point."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def correlation(
    points: Sequence[Point], truth: str, stratum: Callable[[Point], str], *, draws: int = DRAWS
) -> Correlation | None:
    """Spearman's correlation within strata, pooled; the interval draws starts within worlds."""
    x = np.array([point.value for point in points])
    y = np.array([point.truth[truth] for point in points])
    groups = np.unique([stratum(point) for point in points], return_inverse=True)[1]
    everything = np.arange(len(points))
    rho = _pooled(everything, x, y, groups)
    sizes = np.bincount(groups)
    if not math.isfinite(rho) or sizes[sizes >= LEAST].sum() < ENOUGH:
        return None
    starts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for at, point in enumerate(points):
        starts[point.world][point.start].append(at)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        chosen: list[int] = []
        for owners in starts.values():
            members = list(owners.values())
            chosen += [at for i in rng.integers(0, len(members), len(members)) for at in members[i]]
        found.append(_pooled(np.array(chosen), x, y, groups))
    finite = [value for value in found if math.isfinite(value)]
    if not finite:
        return Correlation(rho)
    low, high = np.quantile(finite, [0.025, 0.975])
    return Correlation(rho, float(low), float(high))


def _pooled(chosen: np.ndarray, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """Centred ranks within groups, correlated over all; nan where nothing varies."""
    top = left = right = 0.0
    for group in np.unique(groups[chosen]):
        inside = chosen[groups[chosen] == group]
        if len(np.unique(inside)) < LEAST:
            continue
        a, b = rankdata(x[inside]), rankdata(y[inside])
        a, b = (a - a.mean()) / len(a), (b - b.mean()) / len(b)
        top, left, right = top + a @ b, left + a @ a, right + b @ b
    return top / math.sqrt(left * right) if left * right > 0 else math.nan


def starts_of(rows: Iterable[Row]) -> dict[str, str]:
    """What each SAE's training started from: its width and seed; twins start as seed 0 does."""
    starts = {}
    for row in rows:
        if row["metric"] == "truth":
            axes = row["axes"]
            seed = 0 if axes["kind"] == "twin" else axes["seed"]
            starts[row["subject"][0]] = f"w{axes['width']}-s{seed}"
    return starts


def points_of(
    rows: Iterable[Row], truths: Mapping[str, Mapping[str, float]], starts: Mapping[str, str]
) -> list[Point]:
    """The subjects of one score."""
    points = []
    for row in rows:
        names = row["subject"]
        about = ABOUT.get(row["metric"])
        owners = names if about is None or len(names) != 2 else [names[about]]
        truth = {key: float(np.mean([truths[name][key] for name in owners])) for key in TRUTHS}
        axes = row["axes"]
        size = f"{axes['world']} {axes['width']}"
        start = "+".join(sorted({starts[name] for name in owners}))
        points.append(Point(row["value"], truth, axes["world"], size, start))
    return points


def verdict(better: str | None, found: Sequence[Correlation | None]) -> str:
    """Whether a declared direction is right: shown in one truth at least, contradicted in none."""
    if better is None:
        return ""
    sign = 1 if better == "higher" else -1
    ends = [sorted((sign * one.low, sign * one.high)) for one in found if one is not None]
    if any(high < 0 for _, high in ends):
        return "**wrong**"
    return "right" if any(low > 0 for low, _ in ends) else "not shown"


def scores_table(rows: Sequence[Row], truths: Mapping[str, Mapping[str, float]]) -> str:
    """Each score of each table of the suite, the headline ones first."""
    registry = load_registry(installed=False)
    declared = {
        (metric.name, score.name): score
        for metric in registry.metrics.values()
        for score in metric.scores
    }
    nulls = {(m, score.null) for (m, _), score in declared.items() if score.null}
    starts = starts_of(rows)
    measured: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        key = (row["metric"], row["score"])
        if row["metric"] != "truth" and row["status"] == "measured" and key not in nulls:
            measured[row["label"], *key].append(row)
    lines = []
    for (label, metric, name), of_score in measured.items():
        score = declared[metric, name]
        points = points_of(of_score, truths, starts)
        fixed = [correlation(points, truth, lambda p: p.size) for truth in TRUTHS]
        overall = [correlation(points, truth, lambda p: p.world, draws=0) for truth in TRUTHS]
        if all(one is None for one in (*fixed, *overall)):
            continue
        arrow = {"higher": "↑", "lower": "↓", None: ""}[score.better]
        cells = [str(one) if one is not None else "–" for one in fixed]
        cells += [number(one.rho) if one is not None else "–" for one in overall]
        line = f"| {label} | `{name}` {arrow} | {len(points)} | {' | '.join(cells)} "
        lines.append((not score.headline, f"{line}| {verdict(score.better, fixed)} |"))
    head = (
        "| table | score | n | recovery, size fixed | precision, size fixed "
        "| recovery, all sizes | precision, all sizes | direction |\n"
        "|---|---|--:|--:|--:|--:|--:|---|"
    )
    parts = []
    for rest, title in ((False, "### Headline scores"), (True, "### Other scores")):
        chosen = [line for other, line in lines if other == rest]
        parts.append("\n".join([title, "", head, *chosen]))
    return "\n\n".join(parts)


@dataclass(frozen=True)
class Truth:
    """What is true of the SAEs of one world: the largest cosines of its features, by SAE."""

    cosines: Mapping[str, np.ndarray]
    composed: Mapping[str, float]

    def missing(self, small: Sequence[str], large: Sequence[str]) -> float:
        """Share of the features that every large SAE finds which a small one lacks."""
        found = np.all([self.cosines[name] >= FOUND for name in large], axis=0)
        lacks = np.mean([self.cosines[name] < NEAR for name in small], axis=0)
        return float(lacks[found].mean()) if found.any() else math.nan

    def sums(self, names: Sequence[str]) -> float:
        """Share of latents that are sums of features."""
        return float(np.mean([self.composed[name] for name in names]))

    def shared(self, names: Sequence[str]) -> float:
        """Of the features that some SAE finds, the share that all find."""
        found = np.array([self.cosines[name] >= FOUND for name in names])
        return float(found.all(axis=0).sum() / max(found.any(axis=0).sum(), 1))


def truth_of(rows: Sequence[Row], store: Path) -> Truth:
    """Features' cosines and sums, from the tables and scores of the metric `truth`."""
    cosines, composed = {}, {}
    for row in rows:
        if row["metric"] == "truth" and row["score"] == "composed_share":
            (name,) = row["subject"]
            composed[name] = row["value"]
            table = pd.read_parquet(store / "tables" / row["id"] / "features.parquet")
            cosines[name] = table["cosine_centred"].to_numpy()
    return Truth(cosines, composed)


def answers_table(answers: Sequence[Row], rows: Sequence[Row], truth: Truth) -> str:
    """Every answer beside the truth."""
    names: dict[tuple[str, str, Any], list[str]] = defaultdict(list)
    for row in rows:
        if row["metric"] == "truth" and row["score"] == "recovery":
            axes = row["axes"]
            names[axes["world"], axes["kind"], axes["width"]] += row["subject"]
    lines = [
        "| world | kind | size | question | answer | the truth | |",
        "|---|---|---|---|---|---|---|",
    ]
    unjudged = 0
    for answer in answers:
        axes = answer["axes"]
        if "kind" not in axes:  # of SAEs of several kinds, which are no seeds of one another
            continue
        if answer["question"] == "canonical?":  # held against the truth by canonical_lists.py
            continue
        world, kind, size = axes["world"], axes["kind"], answer["size"]
        of_size = names[world, kind, size]
        word, smaller = answer["answer"], answer["smaller"]
        if word == "not-judged":
            unjudged += 1
            continue
        title = f"{smaller} → {size}" if smaller is not None else f"{size}"
        match answer["question"]:
            case "complete?" if smaller is not None:
                share = truth.missing(names[world, kind, smaller], of_size)
                fact = f"{number(share)} of what the larger find is missing"
                right = judged(word, share, share > MISSING)
            case "atomic?":
                share = truth.sums(of_size)
                fact = f"{number(share)} of the latents are sums of features"
                right = judged(word, share, share > COMPOSED)
            case "unique?":
                share = truth.shared(of_size)
                fact = f"{number(share)} of the features that one finds, all find"
                right = judged(word, share, share < SAME)
            case _:
                continue
        lines.append(
            f"| {world} | {kind} | {title} | {answer['question']} | {word} | {fact} | {right} |"
        )
    lines += ["", f"{unjudged} more are not judged: SAEs of one start, and those that are unfit."]
    return "\n".join(lines)


def judged(word: str, share: float, no: bool) -> str:
    """Whether an answer is right where the truth is a no, or is none."""
    if math.isnan(share):
        return ""
    if word == "no":
        return "right" if no else "**wrong**"
    if word in ("none-found", "same", "yes"):
        return "**wrong**" if no else "right"
    return ""


def equal_variance(truths: Mapping[str, Mapping[str, float]], variance: Mapping[str, float]) -> str:
    """Pairs of SAEs of a world that explain the same variance and do not recover the same."""
    found = []
    for first in sorted(variance):
        for second in sorted(variance):
            same_world = first.split("-")[0] == second.split("-")[0]
            gap = truths[first][TRUTHS[0]] - truths[second][TRUTHS[0]]
            if same_world and abs(variance[first] - variance[second]) <= CLOSE and gap >= APART:
                found.append((gap, first, second))
    best: dict[str, tuple[float, str, str]] = {}
    for gap, first, second in sorted(found, reverse=True):
        best.setdefault(first.split("-")[0], (gap, first, second))
    lines = ["| SAE | explained variance | recovery | precision |", "|---|--:|--:|--:|"]
    for _, first, second in best.values():
        for name in (first, second):
            cells = (variance[name], *(truths[name][truth] for truth in TRUTHS))
            lines.append(f"| {name} | {' | '.join(map(number, cells))} |")
    sentence = (
        f"{len(found)} pairs of SAEs of one world explain the same variance (within "
        f"{number(CLOSE)}) and differ in recovery by {number(APART)} or more. "
        "Of each world that has one, the worst:"
    )
    return f"{sentence}\n\n" + "\n".join(lines)


def page(store: str) -> str:
    """The generated half of the page."""
    rows = program("--all", store=store)
    answers = program("--answers", store=store)
    truths: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row["metric"] == "truth" and row["score"] in TRUTHS:
            truths[row["subject"][0]][row["score"]] = row["value"]
    variance = {
        row["subject"][0]: row["value"]
        for row in rows
        if row["metric"] == "fidelity" and row["score"] == "explained_variance"
    }
    truth = truth_of(rows, Path(store))
    return "\n\n".join(
        [
            "## Scores",
            scores_table(rows, truths),
            "### Equal explained variance, another recovery",
            equal_variance(truths, variance),
            "## Answers",
            answers_table(answers, rows, truth),
            "",
        ]
    )


def main() -> None:
    """Write the page's first half."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True)
    put(PAGE, BEGIN, END, page(parser.parse_args().store))


if __name__ == "__main__":
    main()
