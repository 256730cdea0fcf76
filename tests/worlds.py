"""Planted worlds: activations of known features, and dictionaries whose gaps are known.

A world has SAEs of two widths with several training seeds each and what the verdict `complete?`
may say of the step between them. `judged` measures a world as a suite with floors would.
`python tests/worlds.py` prints the tables of docs/calibration.md on complete?.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import plan_of
from saebench_canon.bench.results import rows_of, tables_of
from saebench_canon.bench.store import Store
from saebench_canon.cli.notebook import _write_acts
from saebench_canon.data.activations_file import ActivationFile
from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import unit
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.question import Answer
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.plugin.table_line import Cell
from saebench_canon.plugin.world import Place
from saebench_canon.plugin.world import World as KnownFeatures
from saebench_canon.questions.complete import COMPLETE
from saebench_canon.saes.formats.in_memory import InMemory
from saebench_canon.suite.metrics import parse_metric
from saebench_canon.suite.specs import SaeSpec, Suite
from saebench_canon.suite.toml_table import TomlTable
from saebench_canon.tables.summarise import summarise

TOKENS, DOCUMENTS = 3072, 24
SETTINGS: Mapping[str, Any] = {"orders": 0, "orderings": ()}  # no verdict needs a path

Kind = Literal["pursuit", "threshold", "topk"]
Saes = dict[tuple[int, int], CanonicalSAE]  # by width and training seed
Made = tuple[Saes, Acts]
Together = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Pursuit:
    """An encoder as good as the rows allow: it takes the best one, subtracts it, and goes on."""

    rows: Tensor  # [m, d]
    steps: int
    least: float  # code below which nothing is taken
    scale: float
    linear: Tensor | None = None

    def dense(self, x: Tensor) -> Tensor:
        """Codes [n, m] of activations [n, d]."""
        codes = x.new_zeros(len(x), len(self.rows))
        gram, pre = self.rows @ self.rows.T, x @ self.rows.T
        for _ in range(self.steps):
            best, index = pre.max(dim=1)
            best = torch.where(best > self.least, best, 0)
            codes.scatter_add_(1, index[:, None], best[:, None])
            pre -= best[:, None] * gram[index]
        return codes * self.scale

    def sparse(self, x: Tensor) -> Codes:
        """The positive codes."""
        return Codes.from_dense(self.dense(x))

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Pursuit:
        """The same encoder elsewhere."""
        return replace(self, rows=self.rows.to(device=device, dtype=dtype))


def sae(
    *rows: Tensor, kind: Kind = "pursuit", steps: int = 6, least: float = 0.5, scale: float = 1.0
) -> CanonicalSAE:
    """An SAE of these rows, each [m, d], whose encoder pursues or lies along them."""
    table = unit(torch.cat(rows)).float()
    bias, zero = torch.zeros(table.shape[1]), torch.zeros(len(table))
    if kind == "pursuit":
        return CanonicalSAE(table, bias, Pursuit(table, steps, least, scale))
    weights = table.T.contiguous()
    size = None if scale == 1 else torch.full_like(zero, scale)
    if kind == "topk":
        return CanonicalSAE(table, bias, LinearEncoder(weights, zero, "topk", k=steps, scale=size))
    level = torch.full_like(zero, least)
    return CanonicalSAE(table, bias, LinearEncoder(weights, zero, "jumprelu", level, scale=size))


def shuffled(trained: CanonicalSAE, chance: torch.Generator) -> CanonicalSAE:
    """The same SAE with its latents in another order: equal numbers would mean one start."""
    order = torch.randperm(trained.width, generator=chance)
    coder = trained.coder
    if isinstance(coder, Pursuit):
        coder = replace(coder, rows=coder.rows[order])
    elif isinstance(coder, LinearEncoder):
        by_latent = {
            name: None if (value := getattr(coder, name)) is None else value[order]
            for name in ("bias", "threshold", "gain", "offset", "scale")
        }
        coder = replace(coder, weights=coder.weights[:, order], **by_latent)
    return replace(trained, W_dec=trained.W_dec[order], coder=coder)


@dataclass(frozen=True)
class Turn:
    """One training: the features [F, d] of its world, and the chance of its seed."""

    features: Tensor
    chance: torch.Generator

    def near(self, rows: Tensor, cosine: float = 0.95) -> Tensor:
        """The rows as a training finds them: each at this cosine, turned away at random."""
        rows = unit(rows)
        chance = torch.randn(rows.shape, generator=self.chance, dtype=rows.dtype)
        aside = unit(chance - (chance * rows).sum(dim=1, keepdim=True) * rows)
        return cosine * rows + (1 - cosine**2) ** 0.5 * aside

    def taught(self, trainer: str, width: int, tokens: int, **settings: Any) -> CanonicalSAE:
        """An SAE really trained, on other activations of the same features."""
        from saebench_canon.plugin.ref import Ref
        from saebench_canon.saes.formats.saelens import SaeLensAdapter
        from saebench_canon.trainers.architectures import TRAINERS

        (plugin,) = (plugin for plugin in TRAINERS if plugin.name == trainer)
        fresh = torch.Generator().manual_seed(1)  # the same for every SAE
        acts = activations(self.features, fresh, tokens=16_384)
        with TemporaryDirectory() as folder:
            seed = self.chance.initial_seed()
            plugin.train(acts, Path(folder), width=width, seed=seed, tokens=tokens, **settings)
            return SaeLensAdapter().load(Ref.parse(f"saelens:{folder}"))

    def random(self, count: int) -> Tensor:
        """Rows of uniform direction."""
        return directions(count, self.features.shape[1], self.chance)

    def some(self, count: int) -> Tensor:
        """So many of the features, others with every seed."""
        return self.features[torch.randperm(len(self.features), generator=self.chance)[:count]]


def directions(count: int, d: int, chance: torch.Generator | int) -> Tensor:
    """Unit rows of uniform direction, [count, d]; of a seed where all trainings share them."""
    if isinstance(chance, int):
        chance = torch.Generator().manual_seed(chance)
    return unit(torch.randn(count, d, generator=chance, dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class OfFeatures(KnownFeatures):
    """A world of given features [F, d]; `together` may change which of them fire [n, F]."""

    named: ClassVar[str] = "of-features"

    table: Tensor | None = None
    together: Together | None = None

    def directions(self, chance: torch.Generator) -> Tensor:
        assert self.table is not None
        return self.table

    def fires(self, place: Place, chance: torch.Generator) -> Tensor:
        fires = super().fires(place, chance)
        return fires if self.together is None else self.together(fires, chance)


def activations(
    features: Tensor,
    chance: torch.Generator,
    *,
    l0: float = 3.0,
    zipf: float = 0.0,
    together: Together | None = None,
    tokens: int = TOKENS,
) -> Acts:
    """Sums of some l0 of the features [F, d]; every document has topics of its own."""
    count, d = features.shape
    world = OfFeatures(
        "of-features", d=d, features=count, seed=chance.initial_seed(), l0=l0, zipf=zipf,
        topics=0.5, document=TOKENS // DOCUMENTS, table=features, together=together,
    )  # fmt: skip
    blocks = list(world.blocks(tokens, "scored"))
    doc = torch.cat([block.place.doc for block in blocks])
    return Acts(torch.cat([block.x for block in blocks]), doc)


@dataclass(frozen=True)
class World:
    """How both sizes come about, and what may be said of them."""

    small: Callable[[Turn], CanonicalSAE]
    large: Callable[[Turn], CanonicalSAE]
    right: tuple[str, ...]  # answers that are true, or say that it cannot be told
    missing: float | None = None  # share of the larger's reproducible latents, where it is known
    d: int = 64
    count: int = 96
    seeds: int = 3
    l0: float = 3.0
    zipf: float = 0.0
    together: Together | None = None
    features: Callable[[torch.Generator], Tensor] | None = None

    def made(self, seed: int) -> Made:
        """The SAEs and activations of one repetition."""
        chance = torch.Generator().manual_seed(7919 * seed + 1)
        if self.features is None:
            features = directions(self.count, self.d, chance)
        else:
            features = self.features(chance)
        acts = activations(features, chance, l0=self.l0, zipf=self.zipf, together=self.together)
        saes = {}
        for training in range(self.seeds):
            for size, make in enumerate((self.small, self.large)):
                generator = torch.Generator().manual_seed(7919 * seed + 100 * training + size + 2)
                trained = shuffled(make(Turn(features, generator)), generator)
                saes[trained.width, training] = trained
        assert len(saes) == 2 * self.seeds, "both sizes need a width of their own"
        return saes, acts


def judged(saes: Saes, acts: Acts) -> Answer:
    """The answer at the step of the ladder, as a suite with fidelity gives it."""
    registry = load_registry()
    tables = [
        {"name": "fidelity"},
        {"name": "comparison", "over": "family"},
        {"name": "insertion", "over": "steps", "peers": "witnesses"},
    ]
    with TemporaryDirectory() as folder:
        data = DataSpec("acts", "world", ActivationFile(_write_acts(acts, Path(folder))))
        specs = [
            SaeSpec(f"w{width}-s{seed}", {"width": width, "seed": seed}, "acts",
                    InMemory(sae_, f"w{width}-s{seed}"), "float32", "world")
            for (width, seed), sae_ in saes.items()
        ]  # fmt: skip
        parsed = [parse_metric(TomlTable(table_, "world"), ["width", "seed"], registry)
                  for table_ in tables]  # fmt: skip
        store = Store(Path(folder) / "store")
        suite = Suite("world", 1, None, {"acts": data}, specs, parsed, ())
        plan = plan_of(suite, registry, store)
        bench = Bench(registry, store)
        for case in plan.cases:
            bench.measure(case)
        rows = rows_of(plan.listed(), store, registry.metrics)
        summary = summarise(rows, registry.metrics.values(), tables=tables_of(store))
        (block,) = summary.blocks
        return COMPLETE.ask(block)[0]


NO, YES, OPEN = "no", "none-found", "undecided"
BLIND, LEFT = "not-measurable", "not-judged"
UNDECIDABLE = (OPEN, BLIND)


FEW = 0.10  # up to such a share of 96 latents may be too few to be told from the limit


def lacking(share: float, right: tuple[str, ...] | None = None, **more: Any) -> World:
    """The small SAE lacks a share of the features: the rarest, where they are not equally so."""
    settings = {key: more.pop(key) for key in ("kind", "steps", "least") if key in more}
    cosine, extra = more.pop("cosine", 0.95), more.pop("extra", 1)
    large_settings = settings | more.pop("large", {})
    small_settings = settings | more.pop("small", {})
    count = more.get("count", 96)
    known = count - round(share * count)
    return World(
        lambda t: sae(t.near(t.features[:known], cosine), **small_settings),
        lambda t: sae(t.near(t.features, cosine), t.random(extra), **large_settings),
        right or ((NO,) if share > FEW else (NO, OPEN) if share else (YES, *UNDECIDABLE)),
        missing=share,
        **more,
    )


def enough(large: Callable[[Turn], CanonicalSAE], *right: str, **more: Any) -> World:
    """The small SAE has every feature."""
    small_settings = more.pop("small", {})
    cosine = more.pop("cosine", 0.95)
    return World(
        lambda t: sae(t.near(t.features, cosine), **small_settings),
        large,
        right or (YES, *UNDECIDABLE),
        0.0,
        **more,
    )


def sums(features: Tensor, count: int, parts: int) -> Tensor:
    """Sums of so many features each, the same with every seed."""
    chance = torch.Generator().manual_seed(parts)
    chosen = [torch.randperm(len(features), generator=chance)[:parts] for _ in range(count)]
    return torch.stack([features[indices].sum(dim=0) for indices in chosen])


def split(cosine: float, *right: str, parents: int = 24, children: int = 3) -> World:
    """Children at the cosine to a parent, each with a direction of its own; the small has parents.

    Children are features, parents are none; both SAEs have 48 other features.
    """
    above = directions(parents, 64, 11)

    def features(chance: torch.Generator) -> Tensor:
        centres = above.repeat_interleave(children, 0)
        aside = directions(len(centres), 64, chance)
        aside = unit(aside - (aside * centres).sum(dim=1, keepdim=True) * centres)
        below = cosine * centres + (1 - cosine**2) ** 0.5 * aside
        return torch.cat([below, directions(48, 64, chance)])

    return World(
        lambda t: sae(t.near(above), t.near(t.features[parents * children :])),
        lambda t: sae(t.near(t.features)),
        right,
        features=features,
    )


def merged(cosine: float) -> World:
    """Twenty-four pairs that nearly always fire together are one latent in the small SAE."""

    def together(fires: Tensor, chance: torch.Generator) -> Tensor:
        both = (fires[:, :24] | fires[:, 24:48]) & (
            torch.rand(len(fires), 24, generator=chance) < 0.9
        )
        return torch.cat([fires[:, :24] | both, fires[:, 24:48] | both, fires[:, 48:]], dim=1)

    return World(
        lambda t: sae(
            t.near(t.features[:24] + t.features[24:48], cosine),
            t.near(t.features[48:], cosine),
            steps=10,
            least=0.4,
        ),
        lambda t: sae(t.near(t.features, cosine), steps=10, least=0.4),
        (NO, *UNDECIDABLE),
        d=96,
        l0=2.0,
        together=together,
    )


def in_groups(fires: Tensor, chance: torch.Generator) -> Tensor:
    """Features of one group of four often fire together."""
    group = fires.view(len(fires), -1, 4).any(dim=2).repeat_interleave(4, dim=1)
    return fires | (group & (torch.rand(fires.shape, generator=chance) < 0.4))


def with_parents(fires: Tensor, chance: torch.Generator) -> Tensor:
    """The first third of the features are parents, who fire when one of two children does."""
    parents = len(fires[0]) // 3
    children = fires[:, parents:].view(len(fires), parents, 2).any(dim=2)
    return torch.cat([fires[:, :parents] | children, fires[:, parents:]], dim=1)


def scattered(share: float, *right: str) -> World:
    """Every large SAE finds another part of the features that all small ones lack."""

    def large(t: Turn) -> CanonicalSAE:
        rare = t.features[128:]
        chosen = torch.randperm(len(rare), generator=t.chance)[: round(share * len(rare))]
        return sae(t.near(t.features[:128]), t.near(rare[chosen]))

    return World(lambda t: sae(t.near(t.features[:128])), large, right, d=96, count=256)


WIDE: Mapping[str, Any] = {"d": 96, "count": 128}
SHARP: Mapping[str, Any] = {"d": 128, "count": 160, "cosine": 0.98}
THIRD: Mapping[str, Any] = {"scale": 1 / 3}

WORLDS: Mapping[str, World] = {
    **{f"lacks {share:.0%}": lacking(share) for share in (0, 0.1, 0.25)},
    "lacks 50%": lacking(0.5, (NO, LEFT)),  # explained variance is then about .5
    "lacks 5%": lacking(0.05, (NO, OPEN)),
    **{f"lacks {share:.0%}, Zipf": lacking(share, zipf=1.0) for share in (0, 0.1, 0.25)},
    "lacks 0%, d 256": lacking(0, d=256, count=384),
    "lacks 25%, d 256": lacking(0.25, d=256, count=384),
    **{
        f"lacks {share:.0%}, JumpReLU": lacking(share, kind="threshold", least=0.9, **WIDE)
        for share in (0, 0.1, 0.25)
    },
    **{
        f"lacks {share:.0%}, TopK": lacking(share, kind="topk", steps=4, **WIDE)
        for share in (0, 0.1, 0.25)
    },
    **{
        f"lacks {share:.0%}, correlated": lacking(share, l0=1.8, steps=8, together=in_groups)
        for share in (0, 0.25)
    },
    **{
        f"lacks {share:.0%}, hierarchy": lacking(share, l0=2.2, steps=8, together=with_parents)
        for share in (0, 0.25)
    },
    **{f"lacks {share:.0%}, and 40 random rows": lacking(share, extra=40) for share in (0, 0.25)},
    "lacks 0%, rows at cosine .85": lacking(0, cosine=0.85),
    "lacks 25%, rows at cosine .85": lacking(0.25, (NO, *UNDECIDABLE), cosine=0.85),
    "lacks 0%, rows at .86, 5 seeds": lacking(0, cosine=0.86, seeds=5),
    "lacks 25%, rows at .86, 5 seeds": lacking(0.25, (NO, *UNDECIDABLE), cosine=0.86, seeds=5),
    **{
        f"lacks {share:.0%}, large codes a third": lacking(share, large=THIRD, steps=8, **SHARP)
        for share in (0, 0.1, 0.25)
    },
    **{
        f"lacks {share:.0%}, small codes a half": lacking(
            share, small={"scale": 0.5}, steps=8, **SHARP
        )
        for share in (0, 0.25)
    },
    "enough: duplicates": enough(lambda t: sae(t.near(t.features), t.near(t.features, 0.9))),
    "enough: half duplicates": enough(
        lambda t: sae(t.near(t.features), t.near(t.features[:48], 0.85))
    ),
    "enough: random rows": enough(lambda t: sae(t.near(t.features), t.random(48))),
    "enough: random rows, TopK": enough(
        lambda t: sae(t.near(t.features), t.random(48), kind="topk", steps=4),
        small={"kind": "topk", "steps": 4},
        **WIDE,
    ),
    "enough: the same random rows": enough(
        lambda t: sae(t.near(t.features), directions(48, 64, 5))
    ),
    **{
        f"enough: sums of {parts}": enough(
            lambda t, parts=parts: sae(t.near(t.features), t.near(sums(t.features, 40, parts)))
        )
        for parts in (2, 3, 6)
    },
    "enough: sums of 6, small codes a half": enough(
        lambda t: sae(t.near(t.features), t.near(sums(t.features, 40, 6))), small={"scale": 0.5}
    ),
    "enough: children with their parent added": enough(
        lambda t: sae(
            t.near(t.features),
            t.near(t.features[32:] + t.features[:32].repeat_interleave(2, 0)),
            steps=8,
        ),
        small={"steps": 8},
        l0=2.2,
        together=with_parents,
    ),
    "both lack the same quarter": World(
        lambda t: sae(t.near(t.features[:96])),
        lambda t: sae(t.near(t.features[:96]), t.near(t.features[:40], 0.9)),
        (YES, *UNDECIDABLE),
        0.0,
        count=128,
    ),
    "large random, pursuit": enough(lambda t: sae(t.random(256), steps=14, least=0.25), BLIND),
    "large random, tied": enough(
        lambda t: sae(t.random(192), kind="threshold", least=0.9), BLIND, LEFT
    ),
    "large hardly trained": enough(
        lambda t: sae(t.near(t.features.repeat(2, 1), 0.35), steps=12, least=0.25), BLIND
    ),
    "large half trained": enough(lambda t: sae(t.near(t.features.repeat(2, 1), 0.8)), BLIND),
    "small random": World(
        lambda t: sae(t.random(192), steps=14, least=0.25),
        lambda t: sae(t.near(t.features), t.near(t.features, 0.9), t.random(10)),
        (NO, *UNDECIDABLE),
    ),
    "small hardly trained": World(
        lambda t: sae(t.near(t.features[:95], 0.75)),
        lambda t: sae(t.near(t.features)),
        (NO, *UNDECIDABLE),
    ),
    "small has another 3/4 with every seed": World(
        lambda t: sae(t.near(t.some(72))), lambda t: sae(t.near(t.features)), (NO,), 0.25
    ),
    **{
        f"large explains less, lacks {share:.0%}": lacking(
            share, (BLIND,), l0=2.0, cosine=0.97, large={"steps": 2}
        )
        for share in (0, 0.1)
    },
    **{
        f"d 8, lacks {share:.0%}": lacking(share, (BLIND,), d=8, count=24, l0=1.5, steps=1)
        for share in (0, 0.25)
    },
    **{
        f"d 16, lacks {share:.0%}": lacking(share, (BLIND,), d=16, count=48, l0=2.0, steps=3)
        for share in (0, 0.25)
    },
    **{f"split at {cosine}": split(cosine, NO) for cosine in (0.6, 0.7)},
    "split at 0.75": split(0.75, NO, *UNDECIDABLE),
    "split at 0.8": split(0.8, NO, *UNDECIDABLE),
    "split at 0.85": split(0.85, *UNDECIDABLE),
    "split at 0.9": split(0.9, *UNDECIDABLE),
    **{f"merged pairs, rows at {cosine}": merged(cosine) for cosine in (0.95, 1.0)},
    "each large finds another quarter": scattered(0.25, NO, *UNDECIDABLE),
    "each large finds another half": scattered(0.5, NO, *UNDECIDABLE),
    "each large finds another 3/4": scattered(0.75, NO, *UNDECIDABLE),
    "two seeds, lacks 25%": lacking(0.25, (NO, OPEN), seeds=2),
    "one seed, lacks 25%": lacking(0.25, (LEFT,), seeds=1),
    "unfit, lacks 50%": lacking(0.5, (LEFT,), kind="threshold", least=0.9),
}


def taught(trainer: str, small: int, large: int, *right: str, stopped: bool = False) -> World:
    """Both SAEs really trained on 64 features in 48 dimensions; the large one may stop early."""
    settings: dict[str, Any] = {"k": 3} if trainer == "topk" else {"l0": 1.0}
    settings |= {"lr": 3e-3, "batch_size": 256, "dead_after": 20_000}
    if trainer != "topk":
        settings.pop("dead_after")
    return World(
        lambda t: t.taught(trainer, small, 400_000, **settings),
        lambda t: t.taught(trainer, large, 24_000 if stopped else 400_000, **settings),
        right,
        d=48,
        count=64,
    )


TAUGHT: Mapping[str, World] = {
    "trained TopK 40 → 96, 64 features": taught("topk", 40, 96, NO),
    "trained TopK 72 → 144, 64 features": taught("topk", 72, 144, YES, *UNDECIDABLE),
    "trained TopK 40 → 96, large stopped": taught("topk", 40, 96, *UNDECIDABLE, LEFT, stopped=True),
    "trained JumpReLU 72 → 144, 64 features": taught("jumprelu", 72, 144, YES, *UNDECIDABLE),
}

BEYOND: Mapping[str, World] = {
    # all seeds start from the same random rows and hardly move, and their latents are shuffled
    "random rows shared by all seeds, small lacks 40%": World(
        lambda t: sae(t.near(t.features[:58])),
        lambda t: sae(directions(256, 64, 5), steps=12, least=0.25),
        UNDECIDABLE,
    ),
}


SHOWN = ("found_again_share", "missing_stable_share", "stable_gain", "less_error")


def table(repeats: int, only: str) -> None:
    """Every world with its answers and the numbers of its first repetition, as Markdown."""
    print("| world | answers | found again | missing (floor) | gain (floor) | less error | |")
    print("|---|---|--:|--:|--:|--:|---|")
    for name, world in {**WORLDS, **TAUGHT, **BEYOND}.items():
        if only not in name:
            continue
        answers = [judged(*world.made(seed)) for seed in range(repeats)]
        counts = Counter(answer.answer for answer in answers)
        said = ", ".join(f"{word} {count}" for word, count in counts.most_common())
        wrong = "" if set(counts) <= set(world.right) else "**wrong**"
        numbers = [_with_floor(answers[0].numbers.get(score)) for score in SHOWN]
        print(f"| {' | '.join([name, said, *numbers, wrong])} |", flush=True)
        if "-v" in sys.argv:
            print("   ", answers[0].sentence, flush=True)


def _with_floor(cell: Cell | None) -> str:
    if cell is None or cell.estimate is None:
        return "–"
    floor = f" ({cell.floor.value:.2f})" if cell.floor else ""
    return f"{cell.estimate.value:.2f}{floor}"


if __name__ == "__main__":
    words = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    table(int(words[0]) if words else 3, words[1] if len(words) > 1 else "")
