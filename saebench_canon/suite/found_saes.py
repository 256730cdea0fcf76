"""How SAEs named on the command line are told apart: kind, training, width and seed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry
from saebench_canon.plugin.training_facts import (
    BY_NAME,
    Fact,
    Facts,
    differing,
    no_seeds,
    training_facts,
)

SEED = re.compile(r"seed[_-]?(\d+)(?:\.(?:pt|pth|npz|safetensors))?")
RESERVED = ("kind", "width", "seed")
FEW = 3  # SAEs that a sentence names


@dataclass(frozen=True)
class FoundSae:
    """An SAE that was named, or found in a folder that was named."""

    ref: Ref
    description: Description
    width: int
    kind: str = ""  # in what it differs from the other SAEs, besides width, training and seed
    training: Mapping[str, Fact] = field(default_factory=dict)  # in what their trainings differ
    seed: int = 0
    checkpoint: str = ""  # its name among SAEs that record one seed

    @property
    def axes(self) -> dict[str, Fact]:
        """Its axes; the kind only if there are several."""
        kind: dict[str, Fact] = {"kind": self.kind} if self.kind else {}
        training = dict(self.training)
        if self.checkpoint:
            counted = f"{training['checkpoint']}-" if "checkpoint" in training else ""
            training["checkpoint"] = f"{counted}{self.checkpoint}"
        return {**kind, **training, "width": self.width, "seed": self.seed}

    @property
    def group(self) -> tuple[object, ...]:
        """What it shares with its seeds."""
        return (self.kind, self.width, self.checkpoint, *self.training.values())

    @property
    def facts(self) -> Facts:
        """What its files and names record of its training."""
        return training_facts(self.description, self.ref.target)


def told_apart(
    saes: Sequence[tuple[Ref, Description, int]], registry: Registry
) -> tuple[list[FoundSae], list[str]]:
    """The SAEs with their axes, and a sentence on those that record the same seed."""
    return _seeded(_by_training([FoundSae(*sae) for sae in _kinds(saes, registry)]))


def _kinds(
    saes: Sequence[tuple[Ref, Description, int]], registry: Registry
) -> list[tuple[Ref, Description, int, str]]:
    """The SAEs with their `kind`: the properties, besides width, in which some of them differ."""
    points = [(description.hook, description.model) for _, description, _ in saes]
    designs = [
        (_format(ref, registry), description.architecture, description.k)
        for ref, description, _ in saes
    ]
    designs_at: defaultdict[tuple[object, ...], set[tuple[object, ...]]] = defaultdict(set)
    for (_, _, width), point, design in zip(saes, points, designs, strict=True):
        designs_at[(*point, width)].add(design)
    # k and architecture may change along a ladder of widths, but not between seeds
    several = any(len(at_one_width) > 1 for at_one_width in designs_at.values())
    properties: list[tuple[object, ...]] = [
        (*(design if several else ()), *point)
        for design, point in zip(designs, points, strict=True)
    ]
    columns: list[int] = []
    for column in range(len(properties[0]) if properties else 0):
        if _distinct(properties, [*columns, column]) > _distinct(properties, columns):
            columns.append(column)
    return [
        (
            ref,
            description,
            width,
            re.sub(r"[^\w.-]+", "_", "-".join(str(values[column]) for column in columns)),
        )
        for (ref, description, width), values in zip(saes, properties, strict=True)
    ]


def _distinct(rows: Sequence[tuple[object, ...]], columns: Sequence[int]) -> int:
    """How many different rows there are in these columns."""
    return len({tuple(row[column] for column in columns) for row in rows})


def _by_training(saes: Sequence[FoundSae]) -> list[FoundSae]:
    """The SAEs with axes for what decides their training and differs between those of one width."""
    groups: defaultdict[tuple[object, ...], list[Facts]] = defaultdict(list)
    for sae in saes:
        groups[sae.group].append(sae.facts)
    names = list(dict.fromkeys(chain.from_iterable(map(differing, groups.values()))))
    # k, hook, model and format are in the kind
    names = [name for name in names if name not in ("k", "hook", "model", "architecture")]
    trainings = [tuple(sae.facts.get(name, "unrecorded") for name in names) for sae in saes]
    columns: list[int] = []
    for column in range(len(names)):
        if _distinct(trainings, [*columns, column]) > _distinct(trainings, columns):
            columns.append(column)
    return [
        replace(sae, training={_axis(names[column]): values[column] for column in columns})
        for sae, values in zip(saes, trainings, strict=True)
    ]


def _axis(name: str) -> str:
    """The name of an axis for a fact of a training."""
    word = re.sub(r"\W+", "_", name.removeprefix(BY_NAME).rpartition(".")[2])
    return word if word.isidentifier() and word not in RESERVED else f"training_{word}"


def _seeded(saes: Sequence[FoundSae]) -> tuple[list[FoundSae], list[str]]:
    """The SAEs with their seeds, and a sentence on those that record the same one."""
    groups: defaultdict[tuple[object, ...], list[FoundSae]] = defaultdict(list)
    for sae in saes:
        groups[sae.group].append(sae)
    seeded: dict[Ref, FoundSae] = {}
    sentences = []
    for group in groups.values():
        if len(group) > 1 and (reason := no_seeds([sae.facts for sae in group])):
            paths = ", ".join(short(sae.ref) for sae in group[:FEW])
            more = f" and {len(group) - FEW} more" if len(group) > FEW else ""
            sentences.append(
                f"taken as checkpoints, not as seeds of one another: {paths}{more}: {reason}"
            )
            names = _names_apart(group)
            seeded |= {
                sae.ref: replace(sae, checkpoint=name)
                for sae, name in zip(group, names, strict=True)
            }
        else:
            numbers = _seeds(group)
            seeded |= {
                sae.ref: replace(sae, seed=seed) for sae, seed in zip(group, numbers, strict=True)
            }
    return [seeded[sae.ref] for sae in saes], sentences


def _seeds(group: Sequence[FoundSae]) -> list[int]:
    """The seeds that files record, or else the numbers in folder names, or else 0, 1, …."""
    recorded = [sae.facts.get("seed") for sae in group]
    matches = [SEED.fullmatch(Path(sae.ref.target).name) for sae in group]
    in_names = [int(match[1]) if match else None for match in matches]
    for seeds in (recorded, in_names):
        if all(type(seed) is int for seed in seeds) and len(set(seeds)) == len(group):
            return [seed for seed in seeds if isinstance(seed, int)]
    return list(range(len(group)))


def _names_apart(group: Sequence[FoundSae]) -> list[str]:
    """A name for each: that of its folder, or its number if two folders have one name."""
    names = [word(Path(sae.ref.target).name) for sae in group]
    return names if len(set(names)) == len(names) else [str(index) for index in range(len(names))]


def _format(ref: Ref, registry: Registry) -> str:
    """The scheme of the adapter that reads the ref."""
    claim = registry.claim(ref.path) if ref.scheme == "file" else None
    return (claim or str(ref)).partition(":")[0]


def word(value: Fact) -> str:
    """A value as it may stand in a name."""
    return re.sub(r"[^\w.-]+", "_", f"{value:g}" if type(value) is float else str(value))


def short(ref: Ref) -> str:
    """The path from the working folder, if the ref is in it."""
    if not ref.local:
        return str(ref)
    path, folder = ref.path, Path.cwd()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
