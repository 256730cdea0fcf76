"""What files record of how SAEs were trained, and whether that makes them seeds of one another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import PurePath
from typing import Any

from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.fingerprint import fingerprint

Fact = str | int | float | bool
Facts = Mapping[str, Fact]

SEED = "seed"
SEED_NAMES = frozenset(
    {"seed", "seeds", "random_seed", "rng_seed", "torch_seed", "training_seed", "global_seed",
     "manual_seed", "init_seed", "sae_seed"}
)  # fmt: skip
# Words of a key that decides what is learnt. Measured results (losses, dead latents) do not.
DECISIVE = frozenset(
    {"lr", "learning", "rate", "l0", "l1", "lp", "lambda", "penalty", "sparsity", "sparse",
     "coef", "coeff", "coefficient", "coeffs", "alpha", "auxk", "aux", "bandwidth", "bandwith",
     "tokens", "tok", "steps", "step", "epochs", "epoch", "batch", "warmup", "warm", "decay",
     "iterations", "iteration", "iters", "iter", "batches", "fraction", "penalties",
     "beta", "beta1", "beta2", "betas", "momentum", "optimizer", "optimiser", "scheduler",
     "schedule", "init", "noise", "target", "k", "ghost", "dropout",
     "groups", "matryoshka", "expansion", "tied", "anneal", "ema", "samples", "context", "ctx"}
)  # fmt: skip
IGNORED = frozenset({"path", "dir", "folder", "device", "dtype", "version", "wandb", "workers",
                     "log", "frequency", "freq", "every", "eval", "prefetch", "id"})  # fmt: skip
IN_A_NAME = re.compile(
    r"(?<![a-z0-9])(average_l0|avg_l0|l0|l1|lambda|lr|steps?|tokens|epochs?|ckpt|checkpoint|penalty"
    r"|sparsity|alpha|k|iters?|iterations|batches)[_=-]?"
    r"(\d+(?:\.\d+)?(?:e-?\d+)?)([kmb]?)(?![a-z0-9.])"
)
UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
DATA = frozenset({"data", "dataset", "datasets", "corpus"})
NOT_TRAINED = frozenset({"data", "dataset", "eval", "evaluation", "test", "shuffle", "loader"})
LONGEST = 200  # letters of a list that is kept; of a longer one, its digest
COUNT = re.compile(r"(?:.*[_-])?(\d{4,})")  # a folder or file after its step or its tokens
BY_NAME = "the name's "
COUNTED = f"{BY_NAME}checkpoint"  # the number of a folder or file, which may be a date
UNSET = "null"
SHOWN = 4  # values of a fact in a sentence


def training_facts(description: Description, path: str | None = None) -> dict[str, Fact]:
    """What decides an SAE besides its width: hook, model, format, k, and its training's settings.

    From its configuration (nested keys joined by dots) and from the names in its path, such as
    `average_l0_71` or the step of a checkpoint.
    """
    located: dict[str, Fact | None] = {
        "model": description.model, "hook": description.hook,
        "architecture": description.architecture, "k": description.k,
    }  # fmt: skip
    facts = {name: value for name, value in located.items() if value is not None}
    seeds: dict[int, Fact] = {}  # by the depth of their keys
    for key, value in _scalars(description.metadata):
        above, _, name = key.lower().rpartition(".")
        words = _words(name)
        if name in SEED_NAMES:
            if value != UNSET and not _words(above) & NOT_TRAINED:
                seeds.setdefault(key.count("."), value)
        elif words & DATA or (words & DECISIVE and not words & IGNORED):
            facts.setdefault(key, value)
    if seeds:
        facts[SEED] = seeds[min(seeds)]
    for name, value in _named(path or ""):
        facts.setdefault(name, value)
    return facts


def _words(key: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", key))


def _scalars(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Fact]]:
    """The numbers, words and flags of a configuration, with nested keys joined by dots."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{key}.")
        elif value is None:
            yield f"{prefix}{key}", UNSET
        elif isinstance(value, str | int | float | bool) and value == value:
            yield f"{prefix}{key}", value
        elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
            tables = {str(at): part for at, part in enumerate(value)}
            yield from _scalars(tables, f"{prefix}{key}.")
        elif isinstance(value, list):
            text = str(value)
            yield f"{prefix}{key}", text if len(text) <= LONGEST else fingerprint(text)


def _named(path: str) -> Iterator[tuple[str, Fact]]:
    """What the last names of a path say."""
    for part in PurePath(path).parts[-3:]:
        stem = re.sub(r"\.(?:pt|pth|npz|safetensors)$", "", part.lower())
        for name, value, unit in IN_A_NAME.findall(stem):
            yield f"{BY_NAME}{name}", _number(value) * UNITS[unit]
    last = re.sub(r"\.(?:pt|pth|npz|safetensors)$", "", PurePath(path).name.lower())
    if count := COUNT.fullmatch(last):
        yield COUNTED, int(count[1])


def _number(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)


def differing(recorded: Sequence[Facts]) -> list[str]:
    """The facts besides the seed that several SAEs record, and not all alike.

    Bare numbers in names count only if the files do not record different seeds: they may be dates.
    """
    names = [name for name in dict.fromkeys(chain.from_iterable(recorded)) if name != SEED]
    if seeds_recorded(recorded) and len({facts[SEED] for facts in recorded}) == len(recorded):
        names = [name for name in names if name != COUNTED]
    return [
        name
        for name in names
        if not _alike(name, [facts[name] for facts in recorded if name in facts])
    ]


def _alike(name: str, values: Sequence[Fact]) -> bool:
    """Whether values are the same; an L0 that was measured differs a little between seeds."""
    if len(set(values)) < 2:
        return True
    measured = re.search(r"(?:^|[._ ])l0(?:$|[. ])", name) and "target" not in name
    numbers = [value for value in values if isinstance(value, int | float)]
    return bool(measured) and len(numbers) == len(values) and max(numbers) <= 1.1 * min(numbers)


def no_seeds(recorded: Sequence[Facts]) -> str | None:
    """Why SAEs cannot be seeds of one another by what their files record; None if they can."""
    if names := differing(recorded):
        name, *more = names
        values = list(dict.fromkeys(_shown(facts[name]) for facts in recorded if name in facts))
        listed = ", ".join(values[:SHOWN]) + (", …" if len(values) > SHOWN else "")
        others = f", and in {', '.join(more[:SHOWN])}" if more else ""
        others += ", …" if len(more) > SHOWN else ""
        return f"they differ in {name} ({listed}){others}"
    seeds = [facts[SEED] for facts in recorded if SEED in facts]
    doubled = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    return None if doubled is None else f"several record the same seed ({_shown(doubled)})"


def seeds_recorded(recorded: Sequence[Facts]) -> bool:
    """Whether each SAE records its seed."""
    return all(SEED in facts for facts in recorded)


def _shown(value: Fact) -> str:
    text = f"{value:g}" if type(value) is float else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
