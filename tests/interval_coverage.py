"""How often the intervals of the rules hold the truth, on seeds and latents that are drawn.

    python tests/interval_coverage.py --runs 2000     # writes its table into docs/statistics.md

A world has features. Each seed of a width finds a feature with a probability that varies between
features and, by a shock, between seeds; of what it does not find, it spans a part by sums. A large
SAE's latents are the features that it finds. What the intervals should hold is known: M and D of
rule A over features and seeds; of these features, the share that a seed finds, and of a seed's
latents the shares that another seed finds, two others, one, or neither.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from calibration_page import number
from clone import DOCS
from generated_part import put
from numpy.polynomial.hermite_e import hermegauss
from numpy.random import Generator
from numpy.typing import NDArray

from saebench_canon.questions.by_other_seeds import found_again
from saebench_canon.questions.intervals import Interval, jackknife
from saebench_canon.questions.relations import Family, Relation
from saebench_canon.questions.weighted import missing

Floats = NDArray[np.float64]

THETA = 0.7
PAGE = DOCS / "statistics.md"
AGAIN = ("found again", "by two", "by one", "by neither")
KINDS = ("M", "D", "jackknife", *AGAIN)
SEEDS, LATENTS, SHOCKS = (3, 5, 10), (64, 200, 500, 2000), (0.0, 0.5)
BEGIN, END = "<!-- of tests/interval_coverage.py -->\n", "<!-- end of interval_coverage.py -->\n"


@dataclass(frozen=True)
class World:
    """What seeds find. Levels are logits; `spread` is between features, `shock` between seeds."""

    features: int
    shock: float
    large: float = 2.0
    small: float = 0.5
    spread: float = 1.0
    spanned: float = 0.3  # share of what is not found that sums span

    @property
    def truth(self) -> tuple[float, float]:
        """The expected share and the share above its floor: over features, seeds and shocks."""
        effects, weights = _normal()
        large, small = self.expected(self.large, effects), self.expected(self.small, effects)
        found = float(weights @ large**2)
        lost = float(weights @ (large**2 * (1 - small))) * (1 - self.spanned) / found
        floor = float(weights @ (large**2 * (1 - large))) * (1 - self.spanned) / found
        return lost, lost - floor

    def again(self, effects: Floats) -> tuple[float, ...]:
        """Of a seed's latents the shares that another finds, two others, one of two, neither.

        Of these features: all seeds are of one model.
        """
        large = self.expected(self.large, effects)
        once, twice, thrice = (float((large**power).sum()) for power in (1, 2, 3))
        another, two = twice / once, thrice / once
        none = 1 - 2 * another + two
        return another, two, 1 - two - none, none

    def expected(self, level: float, effects: Floats) -> Floats:
        """The probability that a seed finds a feature, over shocks."""
        shocks, weights = _normal()
        return _share(level + self.spread * effects[:, None] + self.shock * shocks) @ weights

    def finds(self, level: float, effects: Floats, generator: Generator) -> NDArray[np.bool_]:
        """Which features one seed finds."""
        logits = level + self.spread * effects + self.shock * generator.standard_normal()
        return generator.random(self.features) < _share(logits)


def intervals(
    world: World, seeds: int, generator: Generator
) -> Iterator[tuple[str, Interval, float]]:
    """One draw: each kind of interval, and what it should hold."""
    effects = generator.standard_normal(world.features)
    small = {f"s{seed}": world.finds(world.small, effects, generator) for seed in range(seeds)}
    large = {f"l{seed}": world.finds(world.large, effects, generator) for seed in range(seeds)}
    saes = small | large
    spans = {name: generator.random(world.features) < world.spanned for name in saes}
    relations = {
        (of, at): _relation(saes[at][large[of]], spans[at][large[of]])
        for of in large
        for at in saes
        if at != of
    }
    weighted = missing(Family(relations, THETA), list(small), list(large))
    assert weighted is not None
    share, above = world.truth
    yield "M", weighted.share, share
    yield "D", weighted.above, above
    again = found_again(Family(relations, THETA), list(large))
    yield from zip(AGAIN, (again.shared, *again.intervals), world.again(effects), strict=False)
    shares = [float(row.mean()) for row in small.values()]
    left_out = [float(np.delete(shares, seed).mean()) for seed in range(seeds)]
    expected = float(world.expected(world.small, effects).mean())
    yield "jackknife", jackknife(float(np.mean(shares)), left_out, world.features), expected


def covered(world: World, seeds: int, runs: int, *, start: int = 0) -> dict[str, float]:
    """The share of runs in which each kind of interval holds the truth, and its mean width."""
    generator = np.random.default_rng([start, seeds, world.features, int(100 * world.shock)])
    hits: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    widths: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(runs):
        for kind, interval, truth in intervals(world, seeds, generator):
            hits[kind].append(interval.lo <= truth <= interval.hi)
            widths[kind].append(interval.hi - interval.lo)
    there = [kind for kind in KINDS if hits[kind]]
    means = {kind: float(np.mean(hits[kind])) for kind in there}
    return means | {f"{kind} width": float(np.mean(widths[kind])) for kind in there}


def _relation(found: NDArray[np.bool_], spanned: NDArray[np.bool_]) -> Relation:
    none = np.zeros(len(found))
    return Relation(np.where(found, 0.9, 0.3), none, np.where(spanned, 0.8, 0.0), none > 0)


def _normal() -> tuple[Floats, Floats]:
    """Points of the standard normal and their weights."""
    points, weights = hermegauss(60)
    return points, weights / weights.sum()


def _share(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args(arguments).runs
    rows = [
        {"shock": shock, "seeds": seeds, "features": features}
        | covered(World(features, shock), seeds, runs)
        for shock in SHOCKS
        for seeds in SEEDS
        for features in LATENTS
    ]
    put(PAGE, BEGIN, END, page(rows, runs))


def page(rows: Sequence[dict[str, float]], runs: int) -> str:
    """The table of the page: coverage, and the mean width in brackets."""
    lines = [
        f"| shock | seeds | latents | {' | '.join(KINDS)} |",
        f"|--:|--:|--:|{'--:|' * len(KINDS)}",
    ]
    for row in rows:
        cells = [
            f"{number(row[kind])} ({number(row[f'{kind} width'])})" if kind in row else "–"
            for kind in KINDS
        ]
        first = (number(row["shock"]), f"{row['seeds']:.0f}", f"{row['features']:.0f}")
        lines.append(f"| {' | '.join((*first, *cells))} |")
    return "\n".join([*lines, "", f"{runs:,} runs each.", ""])


if __name__ == "__main__":
    main()
