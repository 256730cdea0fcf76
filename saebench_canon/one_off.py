"""The suite that SAEs named on the command line stand for."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from saebench_canon.adapter import Description
from saebench_canon.errors import CanonError
from saebench_canon.plugins import Registry
from saebench_canon.ref import Ref, is_bare_path

TEXT = "packaged:python-docs"
TOKENS = 131_072
DEEPEST = 3  # folders below a named one in which checkpoints are looked for
SEED = re.compile(r"seed[_-]?(\d+)")


@dataclass(frozen=True)
class Asked:
    """What the command line says beside the SAEs."""

    metrics: str | None = None
    data: str | None = None
    hook: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Opened:
    """An SAE that was named, or found below a folder that was."""

    ref: Ref
    told: Description
    width: int
    seed: int


def one_off_suite(saes: Sequence[str], asked: Asked, registry: Registry) -> tuple[str, list[str]]:
    """TOML text that measures the SAEs, and sentences on what of the wishes does not apply.

    Widths are read; equal widths count along `seed`, or by the numbers in their folders' names.
    """
    if not asked.metrics:
        raise CanonError(
            "SAEs are named, but not what to measure", where="run",
            hint=f"Add --metrics {','.join(registry.metrics)} or some of them.",
        )  # fmt: skip
    refs = [ref for text in saes for ref in _refs(text, registry)]
    opened = _numbered([_described(ref, registry) for ref in refs])
    tables = _data(asked, opened) if asked.data is not None else {}
    names, left_out = _metrics(asked.metrics, opened, registry)
    lines = ["[suite]", 'name = "run"', ""]
    for name, (table, _) in tables.items():
        told = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        lines += [f"[data.{name}]", *told, ""]
    several = any(sae.seed for sae in opened) or len({sae.width for sae in opened}) < len(opened)
    for sae in opened:
        axes = f"{{ width = [{sae.width}]{f', seed = [{sae.seed}]' if several else ''} }}"
        title = f"w{sae.width}{f'-s{sae.seed}' if several else ''}"
        lines += ["[[sae]]", f'name = "{title}"',
                  f"uri = {json.dumps(_escaped(str(sae.ref)))}", f"axes = {axes}"]  # fmt: skip
        lines += [f'data = "{name}"' for name, (_, of) in tables.items() if sae in of]
        lines += [""]
    for name in names:
        lines += ["[[metric]]", f"name = {json.dumps(name)}", ""]
    return "\n".join(lines), left_out


def _refs(text: str, registry: Registry) -> list[Ref]:
    """The ref that the text is, or those of the checkpoints in the folder that it names."""
    if not is_bare_path(text):
        ref = Ref.parse(text)
        return [ref.within(Path.cwd()) if ref.local else ref]
    path = Path(text).absolute()
    found = list(_below(path, registry, DEEPEST)) if path.is_dir() else []
    return [Ref.parse(f"file:{each}") for each in found or [path]]


def _below(folder: Path, registry: Registry, depth: int) -> Iterator[Path]:
    """The checkpoints in a folder, itself first, in the order a person counts."""
    if registry.claim(folder) is not None:
        yield folder
    elif depth > 0:
        for each in sorted((each for each in folder.iterdir() if each.is_dir()), key=_natural):
            yield from _below(each, registry, depth - 1)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", path.name)]


def _described(ref: Ref, registry: Registry) -> tuple[Ref, Description, int]:
    described = registry.adapter(ref.scheme).describe(ref)
    if described.width is None:
        raise CanonError(f"{ref} does not say its width", hint="Write a suite for it.")
    return ref, described, described.width


def _numbered(found: Sequence[tuple[Ref, Description, int]]) -> list[Opened]:
    """The SAEs with their seeds: the folders' numbers where they tell equal widths apart."""
    by_width: defaultdict[int, list[int | None]] = defaultdict(list)
    for ref, _, width in found:
        named = SEED.fullmatch(Path(ref.target).name)
        by_width[width].append(int(named[1]) if named else None)
    told = {
        width: None not in seeds and len(set(seeds)) == len(seeds)
        for width, seeds in by_width.items()
    }
    count: Counter[int] = Counter()
    opened = []
    for ref, described, width in found:
        named_seed = by_width[width][count[width]]
        seed = named_seed if told[width] and named_seed is not None else count[width]
        opened.append(Opened(ref, described, width, seed))
        count[width] += 1
    return opened


def _metrics(
    wanted: str, opened: Sequence[Opened], registry: Registry
) -> tuple[list[str], list[str]]:
    """The metrics that apply, and a sentence on each that does not; one at least must."""
    widths = Counter(sae.width for sae in opened)
    names, left_out = [], []
    for name in dict.fromkeys(each.strip() for each in wanted.split(",")):
        metric = registry.metric(name, where="--metrics")
        if metric.of == "group" and max(widths.values()) < 2:
            left_out.append(f"{name} compares SAEs of one width, and there is one of each")
        elif metric.of == "pair" and len(widths) < 2:
            left_out.append(f"{name} compares two widths, and there is one")
        else:
            names.append(name)
    if not names:
        raise CanonError(
            f"nothing can be measured: {'; '.join(left_out)}", where="--metrics",
            hint="Name more SAEs, or metrics of a single one.",
        )  # fmt: skip
    return names, left_out


def _data(
    asked: Asked, opened: Sequence[Opened]
) -> dict[str, tuple[dict[str, str | int], list[Opened]]]:
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
    groups: dict[tuple[str | None, str, bool], list[Opened]] = defaultdict(list)
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


def _hook(sae: Opened, asked: str | None) -> str:
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
    return str(Path(text).absolute()) if Path(text).is_file() else text


def _looks_like_a_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or Path(text).suffix in (".safetensors", ".npy", ".pt")


def _escaped(template: str) -> str:
    return template.replace("{", "{{").replace("}", "}}")
