"""The suite for SAEs that are named on the command line."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.file_scheme import claimed_files
from saebench_canon.plugin.known_formats import install
from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.ref import Ref, is_bare_path
from saebench_canon.plugin.registry import Registry
from saebench_canon.plugin.training_facts import Fact
from saebench_canon.saes.unclaimed import lacking_plugin
from saebench_canon.saes.weights.regular_file import refuse_special
from saebench_canon.suite.found_saes import FoundSae, short, told_apart, word

TEXT = "packaged:python-docs"
TOKENS = 131_072
DEEPEST = 5  # levels of folders that are searched for checkpoints


@dataclass(frozen=True)
class Options:
    """What the command line says besides the SAEs."""

    metrics: str | None = None
    data: str | None = None
    hook: str | None = None
    text: str | None = None


class SuiteOfSaes(NamedTuple):
    """A suite as TOML text, the names of its SAEs, and sentences on what is left out."""

    text: str
    names: tuple[str, ...]
    left_out: tuple[str, ...]


def suite_of_saes(saes: Sequence[str], options: Options, registry: Registry) -> SuiteOfSaes:
    """The suite for these SAEs, with their axes.

    `width` is read from the checkpoints. `kind` separates SAEs that differ in hook or model, and
    SAEs of one width that differ in format, architecture or k. What else decides a training and
    differs between SAEs of one width (a penalty, the tokens) becomes an axis of its own. SAEs that
    are equal in all of these get different `seed`s: those that their files record, or the numbers
    in their folders' names, or 0, 1, …. SAEs that record the same seed are no seeds of one another:
    an axis `checkpoint` tells them apart.
    """
    if not options.metrics:
        raise CanonError(
            "SAEs are named, but not what to measure",
            hint=f"Add --metrics {','.join(registry.metrics)} or some of them.",
        )  # fmt: skip
    refs, passed_over = _refs(saes, registry)
    opened, on_seeds = told_apart([_described(ref, registry) for ref in refs], registry)
    tables = _data(options, opened) if options.data is not None else {}
    metrics, left_out = _metrics(options.metrics, opened, registry)
    several = len({sae.group for sae in opened}) < len(opened)
    lines = ["[suite]", 'name = "run"', ""]
    for name, (table, _) in tables.items():
        keys = [f"{key} = {_toml(value)}" for key, value in table.items()]
        lines += [f"[data.{name}]", *keys, ""]
    names = {}
    for sae in opened:
        axes = {key: value for key, value in sae.axes.items() if key != "seed" or several}
        title = "-".join(_part(key, value) for key, value in axes.items())
        axes_text = ", ".join(f"{key} = [{_toml(value)}]" for key, value in axes.items())
        uri = _toml(_escaped(str(sae.ref)))
        lines += ["[[sae]]", f'name = "{title}"', f"uri = {uri}", f"axes = {{ {axes_text} }}"]
        lines += [f'data = "{name}"' for name, (_, members) in tables.items() if sae in members]
        lines += [""]
        names[title] = sae.ref
    for metric in metrics:
        lines += _metric(metric, several)
    named = [f"{title} is {short(ref)}" for title, ref in names.items()] if len(names) > 1 else []
    return SuiteOfSaes("\n".join(lines), tuple(named), (*passed_over, *on_seeds, *left_out))


def _toml(value: Fact) -> str:
    """A value as TOML writes it, which has no pairs of surrogates."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _part(key: str, value: Fact) -> str:
    """How an axis is written in an SAE's name."""
    if key in ("kind", "checkpoint"):
        return str(value)
    return f"{key[0] if key in ('width', 'seed') else key}{word(value)}"


def _metric(metric: Metric, several: bool) -> list[str]:
    """A metric's table; with several seeds, these are its peers, and pairs of them its floor."""
    name = json.dumps(metric.name)
    peers = ['peers = "seed"'] if several and "peers" in metric.inputs else []
    lines = ["[[metric]]", f"name = {name}", *peers, ""]
    if metric.of == "pair" and several:
        floor = f"label = {json.dumps(f'{metric.name}_floor')}"
        lines += ["[[metric]]", f"name = {name}", floor, 'over = "all-pairs:seed"', *peers, ""]
    return lines


def _refs(saes: Sequence[str], registry: Registry) -> tuple[list[Ref], list[str]]:
    """The refs of the named SAEs and of those in named folders, and sentences on the rest."""
    refs: dict[Ref, str] = {}
    passed_over: list[str] = []
    for text in saes:
        for ref in _refs_of(text, registry, passed_over):
            where = Ref(ref.scheme, os.path.realpath(ref.path), local=True) if ref.local else ref
            if where in refs:
                raise CanonError(f"'{text}' is named twice")
            refs[where] = text
    return list(refs), passed_over


def _refs_of(text: str, registry: Registry, passed_over: list[str]) -> list[Ref]:
    if not is_bare_path(text):
        ref = Ref.parse(text)
        return [ref.within(Path.cwd()) if ref.local else ref]
    path = Path(text).absolute()
    paths = list(_below(path, registry, DEEPEST, passed_over)) if path.is_dir() else []
    return [Ref.parse(f"file:{checkpoint}") for checkpoint in paths or [path]]


def _below(folder: Path, registry: Registry, depth: int, passed_over: list[str]) -> Iterator[Path]:
    """The folder if it is a checkpoint, else the checkpoints in it, in natural order.

    A file in it is a checkpoint if an adapter claims the file itself.
    """
    if registry.claim(folder) is not None:
        yield folder
        return
    known = lacking_plugin(folder, below=False)
    if known is not None and known.scheme not in registry.adapters:
        passed_over.append(f"{folder} is skipped: {install(known).rstrip('.')}")
    yield from sorted(claimed_files(folder, registry.claim), key=_natural)
    if depth > 0:
        subfolders = [path for path in folder.iterdir() if path.is_dir()]
        for subfolder in sorted(subfolders, key=_natural):
            yield from _below(subfolder, registry, depth - 1, passed_over)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", path.name)]


def _described(ref: Ref, registry: Registry) -> tuple[Ref, Description, int]:
    description = registry.adapter(ref.scheme).describe(ref)
    if description.width is None:
        raise CanonError(f"the width of {ref} is unknown", hint="Write a suite for it.")
    return ref, description, description.width


def _metrics(
    names: str, opened: Sequence[FoundSae], registry: Registry
) -> tuple[list[Metric], list[str]]:
    """The metrics that apply, and a sentence on each that does not; raises if none does."""
    seeds = Counter(sae.group for sae in opened)
    widths = Counter((kind, *others) for kind, _, *others in seeds)
    metrics, left_out = [], []
    for name in dict.fromkeys(name.strip() for name in names.split(",")):
        metric = registry.metric(name, where="--metrics")
        if metric.of == "group" and max(seeds.values()) < 2:
            left_out.append(
                f"not measured: {name} compares SAEs that differ in their seed only, "
                "and there are none"
            )
        elif metric.of == "pair" and max(widths.values()) < 2:
            left_out.append(
                f"not measured: {name} compares two widths of a kind, and there is only one"
            )
        else:
            metrics.append(metric)
    if not metrics:
        raise CanonError(
            f"nothing can be measured: {'; '.join(left_out)}", where="--metrics",
            hint="Name more SAEs, or metrics of a single SAE.",
        )  # fmt: skip
    return metrics, left_out


def _data(
    options: Options, opened: Sequence[FoundSae]
) -> dict[str, tuple[dict[str, str | int], list[FoundSae]]]:
    """A data table for each way in which SAEs read the data, with these SAEs."""
    assert options.data is not None
    path = Path(options.data)
    refuse_special(path, where="--data")
    if path.is_file():
        table: dict[str, str | int] = {"file": str(path.absolute())}
    elif path.is_dir() or not _looks_like_a_path(options.data):
        name = str(path.absolute()) if path.is_dir() else options.data
        table = {"model": name, "text": _text(options.text), "tokens": TOKENS}
    else:
        raise CanonError(
            f"the file {options.data} does not exist", where="--data",
            hint="Name a .safetensors file with 'acts' [n, d], or a language model: "
            "a folder, a hub id, or packaged:tiny-lm.",
        )  # fmt: skip
    groups: dict[tuple[str | None, str, bool], list[FoundSae]] = defaultdict(list)
    for sae in opened:
        hook = None if "file" in table else _hook(sae, options.hook)
        centred = bool(sae.description.center_writing_weights) and "model" in table
        groups[hook, sae.description.normalize, centred].append(sae)
    return {
        "data" if index == 0 else f"data-{index + 1}": (
            table if hook is None else {**table, "hook": hook},
            saes,
        )
        for index, ((hook, _, _), saes) in enumerate(groups.items())
    }


def _hook(sae: FoundSae, option: str | None) -> str:
    hook = option or sae.description.hook
    if hook is None:
        raise CanonError(
            f"{sae.ref} does not name its hook",
            hint="Add --hook, such as --hook blocks.8.hook_resid_pre.",
        )  # fmt: skip
    return hook


def _text(text: str | None) -> str:
    if text is None:
        return TEXT
    path = Path(text)
    refuse_special(path, where="--text")
    if path.is_file():
        return str(path.absolute())
    if path.suffix in (".txt", ".jsonl", ".parquet") or text.startswith((".", "/", "~")):
        raise CanonError(f"the file {text} does not exist", where="--text")
    return text


def _looks_like_a_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or Path(text).suffix in (".safetensors", ".npy", ".pt")


def _escaped(template: str) -> str:
    return template.replace("{", "{{").replace("}", "}}")
