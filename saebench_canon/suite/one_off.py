"""The suite that SAEs named on the command line stand for."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.known_formats import install
from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.ref import Ref, is_bare_path
from saebench_canon.plugin.registry import Registry
from saebench_canon.saes.unclaimed import lacking_plugin

TEXT = "packaged:python-docs"
TOKENS = 131_072
DEEPEST = 5  # folders below a named one in which checkpoints are looked for
SEED = re.compile(r"seed[_-]?(\d+)")


@dataclass(frozen=True)
class Asked:
    """What the command line says beside the SAEs."""

    metrics: str | None = None
    data: str | None = None
    hook: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class FoundSae:
    """An SAE that was named, or found below a folder that was."""

    ref: Ref
    told: Description
    width: int
    kind: str = ""  # in what it differs from the others besides width and seed
    seed: int = 0

    @property
    def axes(self) -> dict[str, str | int]:
        """What tells it apart; the kind only where there are several."""
        kind: dict[str, str | int] = {"kind": self.kind} if self.kind else {}
        return {**kind, "width": self.width, "seed": self.seed}


class OneOff(NamedTuple):
    """TOML text that measures SAEs, what they are called in it, and what of the wishes it lacks."""

    text: str
    called: tuple[str, ...]
    left_out: tuple[str, ...]


def one_off_suite(saes: Sequence[str], asked: Asked, registry: Registry) -> OneOff:
    """The suite that SAEs stand for.

    Widths are read. SAEs of one width that differ in format, architecture or k, and any that differ
    in hook or model, differ in `kind`; what is left equal counts along `seed`, or by the numbers in
    the folders' names.
    """
    if not asked.metrics:
        raise CanonError(
            "SAEs are named, but not what to measure", where="run",
            hint=f"Add --metrics {','.join(registry.metrics)} or some of them.",
        )  # fmt: skip
    refs, passed_over = _refs(saes, registry)
    opened = _numbered(_kinds([_described(ref, registry) for ref in refs], registry))
    tables = _data(asked, opened) if asked.data is not None else {}
    metrics, left_out = _metrics(asked.metrics, opened, registry)
    several = len({(sae.kind, sae.width) for sae in opened}) < len(opened)
    lines = ["[suite]", 'name = "run"', ""]
    for name, (table, _) in tables.items():
        told = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        lines += [f"[data.{name}]", *told, ""]
    names = {}
    for sae in opened:
        axes = {key: value for key, value in sae.axes.items() if key != "seed" or several}
        title = "-".join(_part(key, value) for key, value in axes.items())
        written = ", ".join(f"{key} = [{json.dumps(value)}]" for key, value in axes.items())
        uri = json.dumps(_escaped(str(sae.ref)))
        lines += ["[[sae]]", f'name = "{title}"', f"uri = {uri}", f"axes = {{ {written} }}"]
        lines += [f'data = "{name}"' for name, (_, of) in tables.items() if sae in of]
        lines += [""]
        names[title] = sae.ref
    for metric in metrics:
        lines += _metric(metric, several)
    called = [f"{title} is {_short(ref)}" for title, ref in names.items()] if len(names) > 1 else []
    return OneOff("\n".join(lines), tuple(called), (*passed_over, *left_out))


def _part(key: str, value: str | int) -> str:
    """An axis in an SAE's name."""
    return str(value) if key == "kind" else f"{key[0]}{value}"


def _metric(metric: Metric, several: bool) -> list[str]:
    """A metric's table; with several seeds they are peers, and a pair has its floor among them."""
    name = json.dumps(metric.name)
    peers = ['peers = "seed"'] if several and "peers" in metric.inputs else []
    lines = ["[[metric]]", f"name = {name}", *peers, ""]
    if metric.of == "pair" and several:
        floor = f"label = {json.dumps(f'{metric.name}_floor')}"
        lines += ["[[metric]]", f"name = {name}", floor, 'over = "all-pairs:seed"', *peers, ""]
    return lines


def _refs(saes: Sequence[str], registry: Registry) -> tuple[list[Ref], list[str]]:
    """The refs that are named, those of checkpoints in folders among them, and what was no such."""
    refs: dict[Ref, str] = {}
    passed_over: list[str] = []
    for text in saes:
        for ref in _below_or_itself(text, registry, passed_over):
            where = Ref(ref.scheme, str(ref.path.resolve()), local=True) if ref.local else ref
            if where in refs:
                raise CanonError(f"'{text}' is named twice", where="run")
            refs[where] = text
    return list(refs), passed_over


def _below_or_itself(text: str, registry: Registry, passed_over: list[str]) -> list[Ref]:
    if not is_bare_path(text):
        ref = Ref.parse(text)
        return [ref.within(Path.cwd()) if ref.local else ref]
    path = Path(text).absolute()
    found = list(_below(path, registry, DEEPEST, passed_over)) if path.is_dir() else []
    return [Ref.parse(f"file:{each}") for each in found or [path]]


def _below(folder: Path, registry: Registry, depth: int, passed_over: list[str]) -> Iterator[Path]:
    """The checkpoints in a folder, itself first, in the order a person counts."""
    if registry.claim(folder) is not None:
        yield folder
        return
    known = lacking_plugin(folder, below=False)
    if known is not None and known.scheme not in registry.adapters:
        passed_over.append(f"{folder} is passed over: {install(known).rstrip('.')}")
    if depth > 0:
        for each in sorted((each for each in folder.iterdir() if each.is_dir()), key=_natural):
            yield from _below(each, registry, depth - 1, passed_over)


def _short(ref: Ref) -> str:
    """A path as seen from here, where that is shorter."""
    if not ref.local:
        return str(ref)
    path, here = ref.path, Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _kinds(
    found: Sequence[tuple[Ref, Description, int]], registry: Registry
) -> list[tuple[Ref, Description, int, str]]:
    """The SAEs with what tells them apart besides width: only that in which some differ."""
    places = [(told.hook, told.model) for _, told, _ in found]
    makes = [(_format(ref, registry), told.architecture, told.k) for ref, told, _ in found]
    alike: defaultdict[tuple[object, ...], set[tuple[object, ...]]] = defaultdict(set)
    for (_, _, width), place, make in zip(found, places, makes, strict=True):
        alike[(*place, width)].add(make)
    # a ladder may change its k or its architecture on the way, seeds may not
    several = any(len(each) > 1 for each in alike.values())
    whole: list[tuple[object, ...]] = [
        (*(make if several else ()), *place) for make, place in zip(makes, places, strict=True)
    ]
    chosen: list[int] = []
    for place_at in range(len(whole[0]) if whole else 0):
        with_it = {tuple(each[at] for at in (*chosen, place_at)) for each in whole}
        if len(with_it) > len({tuple(each[at] for at in chosen) for each in whole}):
            chosen.append(place_at)
    return [
        (ref, told, width, re.sub(r"[^\w.-]+", "_", "-".join(str(each[at]) for at in chosen)))
        for (ref, told, width), each in zip(found, whole, strict=True)
    ]


def _format(ref: Ref, registry: Registry) -> str:
    """The scheme of the adapter that reads the ref."""
    claim = registry.claim(ref.path) if ref.scheme == "file" else None
    return (claim or str(ref)).partition(":")[0]


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", path.name)]


def _described(ref: Ref, registry: Registry) -> tuple[Ref, Description, int]:
    described = registry.adapter(ref.scheme).describe(ref)
    if described.width is None:
        raise CanonError(f"{ref} does not say its width", hint="Write a suite for it.")
    return ref, described, described.width


def _numbered(found: Sequence[tuple[Ref, Description, int, str]]) -> list[FoundSae]:
    """The SAEs with their seeds: the folders' numbers where they tell equal ones apart."""
    alike: defaultdict[tuple[str, int], list[int | None]] = defaultdict(list)
    for ref, _, width, kind in found:
        named = SEED.fullmatch(Path(ref.target).name)
        alike[kind, width].append(int(named[1]) if named else None)
    told = {
        key: None not in seeds and len(set(seeds)) == len(seeds) for key, seeds in alike.items()
    }
    count: Counter[tuple[str, int]] = Counter()
    opened = []
    for ref, described, width, kind in found:
        key = kind, width
        named_seed = alike[key][count[key]]
        seed = named_seed if told[key] and named_seed is not None else count[key]
        opened.append(FoundSae(ref, described, width, kind, seed))
        count[key] += 1
    return opened


def _metrics(
    wanted: str, opened: Sequence[FoundSae], registry: Registry
) -> tuple[list[Metric], list[str]]:
    """The metrics that apply, and a sentence on each that does not; one at least must."""
    seeds = Counter((sae.kind, sae.width) for sae in opened)
    widths = Counter(kind for kind, _ in seeds)
    metrics, left_out = [], []
    for name in dict.fromkeys(each.strip() for each in wanted.split(",")):
        metric = registry.metric(name, where="--metrics")
        if metric.of == "group" and max(seeds.values()) < 2:
            left_out.append(
                f"not measured: {name} compares SAEs that differ in their seed only, "
                "and there is one of each"
            )
        elif metric.of == "pair" and max(widths.values()) < 2:
            left_out.append(f"not measured: {name} compares two widths of a kind, and there is one")
        else:
            metrics.append(metric)
    if not metrics:
        raise CanonError(
            f"nothing can be measured: {'; '.join(left_out)}", where="--metrics",
            hint="Name more SAEs, or metrics of a single one.",
        )  # fmt: skip
    return metrics, left_out


def _data(
    asked: Asked, opened: Sequence[FoundSae]
) -> dict[str, tuple[dict[str, str | int], list[FoundSae]]]:
    """A data table for every way in which the SAEs read the data, with its SAEs."""
    assert asked.data is not None
    path = Path(asked.data)
    if path.is_file():
        table: dict[str, str | int] = {"file": str(path.absolute())}
    elif path.is_dir() or not _looks_like_a_path(asked.data):
        name = str(path.absolute()) if path.is_dir() else asked.data
        table = {"model": name, "text": _text(asked.text), "tokens": TOKENS}
    else:
        raise CanonError(
            f"no file {asked.data}", where="--data",
            hint="It is a .safetensors file with 'acts' [n, d], or a language model: "
            "a folder, a hub id, or packaged:tiny-lm.",
        )  # fmt: skip
    groups: dict[tuple[str | None, str, bool], list[FoundSae]] = defaultdict(list)
    for sae in opened:
        hook = None if "file" in table else _hook(sae, asked.hook)
        centred = bool(sae.told.center_writing_weights) and "model" in table
        groups[hook, sae.told.normalize, centred].append(sae)
    return {
        "data" if index == 0 else f"data-{index + 1}": (
            table if hook is None else {**table, "hook": hook},
            saes,
        )
        for index, ((hook, _, _), saes) in enumerate(groups.items())
    }


def _hook(sae: FoundSae, asked: str | None) -> str:
    hook = asked or sae.told.hook
    if hook is None:
        raise CanonError(
            f"{sae.ref} does not say where in a model it belongs", where="--data",
            hint="Add --hook, such as --hook blocks.8.hook_resid_pre.",
        )  # fmt: skip
    return hook


def _text(text: str | None) -> str:
    if text is None:
        return TEXT
    path = Path(text)
    if path.is_file():
        return str(path.absolute())
    if path.suffix in (".txt", ".jsonl", ".parquet") or text.startswith((".", "/", "~")):
        raise CanonError(f"there is no file {text}", where="--text")
    return text


def _looks_like_a_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or Path(text).suffix in (".safetensors", ".npy", ".pt")


def _escaped(template: str) -> str:
    return template.replace("{", "{{").replace("}", "}}")
