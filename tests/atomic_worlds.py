"""Planted decoders whose composition is known, and what `atomic?` may say of them.

A world gives the rows of a smaller and of a larger SAE for each training seed; what is true is the
same with every seed, and each finds it with some noise. `judged` measures a world as a suite would.
`python tests/atomic_worlds.py` prints the tables of docs/calibration.md on atomic?.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from worlds import Turn, directions

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import plan_of
from saebench_canon.bench.results import rows_of, tables_of
from saebench_canon.bench.store import Store
from saebench_canon.kernels.cosine import unit
from saebench_canon.kernels.nulls import isotropic
from saebench_canon.plugin.question import Answer
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.plugin.table_line import Cell
from saebench_canon.questions import atomic
from saebench_canon.saes.formats.in_memory import InMemory
from saebench_canon.suite.metrics import parse_metric
from saebench_canon.suite.specs import SaeSpec, Suite
from saebench_canon.suite.toml_table import TomlTable
from saebench_canon.tables.summarise import summarise

NO, YES, OPEN, BLIND = "no", "none-found", "undecided", "not-measurable"
UNDECIDABLE = (OPEN, BLIND)
ATOMIC = (YES, *UNDECIDABLE)
COMPOSED = (NO, *UNDECIDABLE)
NOT_BELOW = (*COMPOSED, YES)  # sums of what the smaller SAE lacks are not tested, as it says

Draw = torch.Generator
Rows = Callable[[Draw], Tensor]  # of a world's own randomness, the same for every seed


@dataclass(frozen=True)
class World:
    """Both decoders as they truly are, how well a training finds them, and what may be said."""

    large: Rows
    small: Rows | None
    right: tuple[str, ...]
    cosine: float = 0.97  # of a row found to the true one
    seeds: int = 3
    seeds_differ: bool = False  # every seed draws another dictionary

    def made(self, seed: int) -> dict[tuple[int, int], Tensor]:
        """Unit rows by width and training seed."""
        rows_by_sae = {}
        for training in range(self.seeds):
            truth = draw(seed, training if self.seeds_differ else 0)
            chance = draw(seed, 100 + training)
            for make in (self.large, self.small):
                if make is not None:
                    rows = near(make(truth), self.cosine, chance)
                    rows = rows[torch.randperm(len(rows), generator=chance)]
                    rows_by_sae[len(rows), training] = rows
        return rows_by_sae


def draw(*parts: int) -> Draw:
    """A generator for a world's seed and purpose."""
    number = 7919
    for part in parts:
        number = number * 1_000_003 + part
    return torch.Generator().manual_seed(number % 2**62)


def near(rows: Tensor, cosine: float, chance: Draw) -> Tensor:
    """The rows as a training finds them: each at this cosine, turned away at random."""
    rows = unit(rows)
    aside = torch.randn(rows.shape, generator=chance, dtype=torch.float64)
    aside = unit(aside - (aside * rows).sum(dim=1, keepdim=True) * rows)
    return cosine * rows + math.sqrt(1 - cosine**2) * aside


def sums(atoms: Tensor, count: int, g: Draw, parts: tuple[int, ...] = (2, 3)) -> Tensor:
    """Sums of so many of the atoms each, weights from .75 to 1.25."""
    rows = []
    for _ in range(count):
        size = parts[int(torch.randint(len(parts), (1,), generator=g))]
        chosen = torch.randperm(len(atoms), generator=g)[:size]
        weights = 0.75 + 0.5 * torch.rand(size, generator=g, dtype=torch.float64)
        rows.append(weights @ atoms[chosen])
    return unit(torch.stack(rows)) if rows else atoms[:0]


def about(centres: Tensor, count: int, cosine: float, g: Draw) -> Tensor:
    """Rows at this cosine to a centre, so many each, with directions of their own."""
    return near(centres.repeat_interleave(count, 0), cosine, g)


def anisotropic(m: int, d: int, g: Draw, power: float = 1.0) -> Tensor:
    """Random rows whose variance falls off like 1/i^power along the axes."""
    scale = torch.arange(1, d + 1, dtype=torch.float64) ** (-power / 2)
    return unit(torch.randn(m, d, generator=g, dtype=torch.float64) * scale)


def planted(d: int, m: int, rate: float, *, atoms: int | None = None, with_atoms: bool) -> World:
    """A share of the large rows are sums of a few atoms; the small SAE has them, or others."""
    few = atoms or m // 16

    def large(g: Draw) -> Tensor:
        table = isotropic(few, d, g)
        count = round(rate * m)
        return torch.cat([isotropic(m - count, d, g), sums(table, count, g)])

    def small(g: Draw) -> Tensor:
        table = isotropic(few, d, draw(int(g.initial_seed()) % 2**31))
        return torch.cat([table, isotropic(max(m // 2 - few, 1), d, g)])

    def shared(g: Draw) -> Tensor:  # the atoms that `large` drew first, from the same generator
        same_draws = torch.Generator().manual_seed(g.initial_seed())
        return torch.cat([isotropic(few, d, same_draws), isotropic(m // 2 - few, d, g)])

    below = COMPOSED if with_atoms else NOT_BELOW
    return World(large, shared if with_atoms else small, below if rate else ATOMIC)


def clusters(d: int, m: int, count: int, cosine: float, *, centres_below: bool = True) -> World:
    """Rows about centres, whose mutual cosine is given; the small SAE has the centres."""

    def large(g: Draw) -> Tensor:
        return about(isotropic(m // count, d, g), count, math.sqrt(cosine), g)

    def small(g: Draw) -> Tensor:
        same_draws = torch.Generator().manual_seed(g.initial_seed())
        centres = isotropic(m // count, d, same_draws if centres_below else g)
        return torch.cat([centres, isotropic(m // 4, d, g)])

    return World(large, small, ATOMIC)


def siblings(d: int, m: int, cosine: float, parents: int = 16) -> World:
    """Loose clusters of which the small SAE has other members, and no centre."""

    def members(g: Draw) -> Tensor:
        same_draws = torch.Generator().manual_seed(g.initial_seed())
        centres = isotropic(parents, d, same_draws)
        return about(centres, (m + m // 2) // parents, math.sqrt(cosine), same_draws)

    def split(g: Draw) -> tuple[Tensor, Tensor]:
        rows = members(g)
        order = torch.randperm(len(rows), generator=draw(int(d), m))
        return rows[order[:m]], rows[order[m:]]

    return World(lambda g: split(g)[0], lambda g: split(g)[1], ATOMIC)


def splits(d: int, m: int, cosine: float, count: int = 4) -> World:
    """Children of one parent each, at this cosine to it, beside other features; small has both."""

    def large(g: Draw) -> Tensor:
        return torch.cat([about(isotropic(m // 2 // count, d, g), count, cosine, g),
                          isotropic(m // 2, d, draw(5, d))])  # fmt: skip

    def small(g: Draw) -> Tensor:
        same_draws = torch.Generator().manual_seed(g.initial_seed())
        return torch.cat(
            [isotropic(m // 2 // count, d, same_draws), isotropic(m // 2, d, draw(5, d))]
        )

    return World(large, small, ATOMIC)


def grid(d: int, side: int, *, with_factors: bool) -> World:
    """Every sum of one of the colours and one of the shapes; the small SAE has them, or others."""

    def large(g: Draw) -> Tensor:
        colours, shapes = isotropic(side, d, g), isotropic(side, d, g)
        return unit((colours[:, None] + shapes[None]).reshape(-1, d))

    def small(g: Draw) -> Tensor:
        same_draws = torch.Generator().manual_seed(g.initial_seed() + (0 if with_factors else 1))
        return torch.cat([isotropic(side, d, same_draws), isotropic(side, d, same_draws),
                          isotropic(side * side // 4, d, g)])  # fmt: skip

    return World(large, small, COMPOSED if with_factors else NOT_BELOW)


def plain(large: Rows, small: Rows, right: tuple[str, ...] = ATOMIC, **more: object) -> World:
    """Any two decoders."""
    return replace(World(large, small, right), **more)  # type: ignore[arg-type]


def independent(d: int, m: int, **more: object) -> World:
    """Random features; the small SAE has half of them."""
    return plain(
        lambda g: isotropic(m, d, g),
        lambda g: isotropic(m, d, torch.Generator().manual_seed(g.initial_seed()))[: m // 2],
        **more,
    )


def worlds_of(d: int, m: int) -> dict[str, World]:
    """The worlds of one size."""
    side = math.isqrt(m)
    worlds: dict[str, World] = {}
    for rate in (0.0, 0.25, 0.5, 1.0):
        worlds[f"sums {rate:.0%}"] = planted(d, m, rate, with_atoms=True)
        worlds[f"sums {rate:.0%}, atoms not below"] = planted(d, m, rate, with_atoms=False)
    worlds |= {
        "sums 50% of m/8 atoms, not below": planted(d, m, 0.5, atoms=m // 8, with_atoms=False),
        "sums 100% of m/4 atoms, not below": planted(d, m, 1.0, atoms=m // 4, with_atoms=False),
        "sums 100% of m/2 atoms": planted(d, m, 1.0, atoms=m // 2, with_atoms=True),
        "grid of sums": grid(d, side, with_factors=True),
        "grid of sums, factors not below": grid(d, side, with_factors=False),
        **{f"split at {cosine}": splits(d, m, cosine) for cosine in (0.6, 0.7, 0.8, 0.9)},
        "split at 0.8 in sixteen": splits(d, m, 0.8, 16),
        **{f"clusters of 16 at {c}": clusters(d, m, 16, c) for c in (0.45, 0.55, 0.67, 0.9)},
        **{f"clusters of 8 at {c}": clusters(d, m, 8, c) for c in (0.45, 0.55)},
        **{f"clusters of 32 at {c}": clusters(d, m, 32, c) for c in (0.35, 0.5)},
        "clusters of 16 at 0.5, centres not below": clusters(d, m, 16, 0.5, centres_below=False),
        **{f"siblings of clusters at {c}": siblings(d, m, c) for c in (0.5, 0.6)},
        "duplicates": plain(
            lambda g: isotropic(m // 2, d, g).repeat(2, 1), lambda g: isotropic(m // 4, d, g)
        ),
        "independent": independent(d, m),
        "independent, five seeds": independent(d, m, seeds=5),
        "anisotropic": plain(
            lambda g: anisotropic(m, d, g), lambda g: anisotropic(m // 2, d, g)
        ),
        "very anisotropic": plain(
            lambda g: anisotropic(m, d, g, 2.0), lambda g: anisotropic(m // 2, d, g, 2.0)
        ),
        "seeds that share nothing": independent(d, m, seeds_differ=True),
        "seeds that share nothing, anisotropic": plain(
            lambda g: anisotropic(m, d, g), lambda g: anisotropic(m // 2, d, g), seeds_differ=True
        ),
        "two seeds, sums 50%": replace(
            planted(d, m, 0.5, with_atoms=True), seeds=2, right=("not-judged", *UNDECIDABLE)
        ),
    }  # fmt: skip
    return worlds


SIZES: Mapping[str, tuple[int, int]] = {"d 64": (64, 256), "d 128": (128, 512)}
LARGE: Mapping[str, tuple[int, int]] = {"d 256": (256, 768), "d 768": (768, 1024)}
WORLDS: Mapping[str, World] = {
    f"{name}, {size}": world
    for size, (d, m) in {**SIZES, **LARGE}.items()
    for name, world in worlds_of(d, m).items()
}


def taught(widths: tuple[int, int], seed: int) -> dict[tuple[int, int], CanonicalSAE]:
    """TopK SAEs really trained, on sums of 160 independent features in 64 dimensions."""
    saes = {}
    for training in range(3):
        for size, width in enumerate(widths):
            turn = Turn(directions(160, 64, 7919 * seed + 3), draw(seed, training, size))
            saes[width, training] = turn.taught("topk", width, 1_000_000, k=4, lr=3e-3, decay=0.5)
    return saes


# what nothing here sees: parts that hardly recur, and that the smaller SAE lacks
BEYOND: Mapping[str, World] = {
    "sums 100% of m atoms, not below, d 256": plain(
        lambda g: sums(isotropic(768, 256, g), 768, g), lambda g: isotropic(384, 256, g), NOT_BELOW
    ),
}

# fewer latents than features, so that each can be one of them
TAUGHT: Mapping[str, tuple[int, int]] = {
    "trained on independent features, 48 → 96": (48, 96),
    "trained on independent features, 64 → 128": (64, 128),
}


def judged(saes: Mapping[tuple[int, int], Tensor | CanonicalSAE], **settings: object) -> Answer:
    """The answer on the larger size, as a suite gives it."""
    registry = load_registry()
    tables: list[dict[str, object]] = [{"name": "meta_sae", "settings": settings}]
    widths = {width for width, _ in saes}
    if len(saes) > 1:
        tables.append({"name": "comparison", "over": "family"})
    for table in tables:
        if table["name"] == "meta_sae":
            table["where"] = {"width": f">= {max(widths)}"}
    with TemporaryDirectory() as folder:
        specs = [
            SaeSpec(f"w{width}-s{seed}", {"width": width, "seed": seed}, None,
                    InMemory(_as_sae(sae), f"w{width}-s{seed}"), "float32", "world")
            for (width, seed), sae in saes.items()
        ]  # fmt: skip
        parsed = [parse_metric(TomlTable(table_, "world"), ["width", "seed"], registry)
                  for table_ in tables]  # fmt: skip
        store = Store(Path(folder) / "store")
        suite = Suite("world", 1, None, {}, specs, parsed, ())
        plan = plan_of(suite, registry, store)
        bench = Bench(registry, store)
        for case in plan.cases:
            bench.measure(case)
        rows = rows_of(plan.listed(), store, registry.metrics)
        summary = summarise(rows, registry.metrics.values(), tables=tables_of(store))
        (block,) = summary.blocks
        return next(answer for answer in atomic.ATOMIC.ask(block) if answer.size == max(widths))


def _as_sae(rows: Tensor | CanonicalSAE) -> CanonicalSAE:
    if isinstance(rows, CanonicalSAE):
        return rows
    table = unit(rows).float()
    zeros = torch.zeros(len(table))
    return CanonicalSAE(
        table, torch.zeros(table.shape[1]), LinearEncoder(table.T.contiguous(), zeros, "relu")
    )


SHOWN = (
    "composed_share", "planted_recall", "meta_sae.composed_excess", "meta_sae.planted_recall",
)  # fmt: skip


def _table(names: list[str], repeats: int) -> None:
    print("| world | answers | sums of smaller latents (floor) | planted "
          "| of meta-latents: excess | planted |")  # fmt: skip
    print("|---|---|--:|--:|--:|--:|")
    for name in names:
        world = {**WORLDS, **BEYOND}.get(name)
        right = ATOMIC if world is None else world.right
        counts: Counter[str] = Counter()
        numbers: Mapping[str, Cell] = {}
        for seed in range(repeats):
            answer = judged(taught(TAUGHT[name], seed) if world is None else world.made(seed))
            wrong = "" if answer.answer in right else " (WRONG)"
            counts[f"{answer.answer}{wrong}"] += 1
            numbers = numbers or answer.numbers
        said = ", ".join(f"{word} {count}" for word, count in counts.most_common())
        cells = " | ".join(_with_floor(numbers.get(column)) for column in SHOWN)
        print(f"| {name} | {said} | {cells} |", flush=True)
        if "-v" in sys.argv:
            print("   ", answer.sentence, flush=True)


def _with_floor(cell: Cell | None) -> str:
    if cell is None or cell.estimate is None:
        return "–"
    floor = "" if cell.floor is None else f" ({cell.floor.value:.2f})"
    return f"{cell.estimate.value:.2f}{floor}"


if __name__ == "__main__":
    which = [word for word in sys.argv[2:] if word != "-v"] or [""]
    every = [*WORLDS, *TAUGHT, *BEYOND]
    chosen = [name for name in every if any(part in name for part in which)]
    _table(chosen, int(sys.argv[1]) if sys.argv[1:] else 1)
