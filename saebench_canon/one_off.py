"""The suite that SAEs named on the command line stand for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from saebench_canon.errors import CanonError
from saebench_canon.plugins import Registry
from saebench_canon.ref import Ref, is_bare_path


def one_off_suite(
    saes: Sequence[str], metrics: str | None, data: str | None, registry: Registry
) -> str:
    """TOML text that measures the SAEs: their width is read, equal widths count along `seed`."""
    if not metrics:
        raise CanonError(
            "SAEs are named, but not what to measure", where="run",
            hint=f"Add --metrics {','.join(registry.metrics)} or some of them.",
        )  # fmt: skip
    lines = ["[suite]", 'name = "run"', ""]
    if data is not None:
        lines += _data(data)
    widths: Counter[int] = Counter()
    described = []
    for text in saes:
        ref = Ref.parse(f"file:{text}" if is_bare_path(text) else text)
        width = registry.adapter(ref.scheme).describe(ref).width
        if width is None:
            raise CanonError(f"{text} does not say its width", hint="Write a suite for it.")
        described.append((ref, width, widths[width]))
        widths[width] += 1
    seeds = max(widths.values()) > 1
    for ref, width, seed in described:
        absolute = ref.within(Path.cwd()) if ref.local else ref
        axes = f"{{ width = [{width}]{f', seed = [{seed}]' if seeds else ''} }}"
        lines += ["[[sae]]", f'name = "w{width}{f"-s{seed}" if seeds else ""}"',
                  f"uri = {json.dumps(_escaped(str(absolute)))}", f"axes = {axes}"]  # fmt: skip
        lines += ['data = "data"', ""] if data is not None else [""]
    for name in metrics.split(","):
        metric = registry.metric(name.strip(), where="--metrics")
        if metric.of == "group" and not seeds:
            raise CanonError(
                f"metric '{metric.name}' compares SAEs of one width", where="--metrics",
                hint="Name two or more SAEs of the same width.",
            )  # fmt: skip
        if metric.of == "pair" and len(widths) < 2:
            raise CanonError(
                f"metric '{metric.name}' compares two widths", where="--metrics",
                hint="Name SAEs of different widths.",
            )  # fmt: skip
        lines += ["[[metric]]", f"name = {json.dumps(metric.name)}", ""]
    return "\n".join(lines)


def _data(data: str) -> list[str]:
    path = Path(data)
    if not path.is_file():
        raise CanonError(
            f"no file {data}", where="--data",
            hint="It is a .safetensors file with 'acts' [n, d]; for a model write a suite.",
        )  # fmt: skip
    return ["[data.data]", f"file = {json.dumps(str(path.resolve()))}", ""]


def _escaped(template: str) -> str:
    return template.replace("{", "{{").replace("}", "}}")
