"""The tables of docs/worlds.md: what each world has of its own, and ten of its features.

`python tests/world_tables.py` writes them into the page.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

import torch
from clone import DOCS
from every_world import EVERY_WORLD
from generated_part import put

from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.data_keys import keys_of
from saebench_canon.plugin.world import World

PAGE = DOCS / "worlds.md"
BEGIN, END = "<!-- tables -->\n", "<!-- end of tables -->\n"
TOKENS, SHOWN, LEAST = 32_768, 10, 100


def section(kind: type[World]) -> str:
    """A world's heading, words, settings and features."""
    text = " ".join(inspect.cleandoc(kind.__doc__ or "").split())
    return "\n\n".join([f"### {kind.named}", text, settings(kind), table(kind)])


def settings(kind: type[World]) -> str:
    """The settings that differ from those of every world."""
    common = {field.name: field.default for field in fields(World)}
    own = [
        f"`{key.name}` ({_shown(key.default)})"
        for key in keys_of(kind)
        if key.name not in kind.without
        and (key.name not in common or key.default != common[key.name])
    ]
    sentence = f"Settings: {', '.join(own)}." if own else "Settings: those of every world."
    lacks = ", ".join(f"`{name}`" for name in kind.without)
    return f"{sentence} Without {lacks}." if lacks else sentence


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"  # type: ignore[str-format]


def table(kind: type[World]) -> str:
    """Some features: how often they fire, with which other one, and how near another one is."""
    source = kind(kind.named or "")
    world = source.opened(DataSpec("w", "docs", source))
    codes = torch.cat([block.codes.dense() for block in world.blocks(TOKENS, "scored")])
    fires = (codes > 0).double()
    density = fires.mean(dim=0)
    together = fires.T @ fires
    together[:, fires.sum(dim=0) < LEAST] = 0  # what fires on few tokens fires with anything
    # how many times as often as by chance
    lift = together / fires.sum(dim=0)[:, None].clamp(min=1) / density.clamp(min=1e-9)
    lift.fill_diagonal_(-1)
    rows = world.rows()
    cosines = (rows @ rows.T).fill_diagonal_(-1)
    names = world.names()
    lines = [
        "| feature | fires on | times as often with | nearest direction |",
        "|---|--:|---|---|",
    ]
    step = max(1, len(names) // SHOWN)
    for feature in range(0, len(names), step)[:SHOWN]:
        partner, near = int(lift[feature].argmax()), int(cosines[feature].argmax())
        times = float(lift[feature, partner])
        with_other = f"{times:.2g}: {names[partner]}" if times > 0 else "never with another"
        lines.append(
            f"| {names[feature]} | {100 * float(density[feature]):.2g} % | {with_other} "
            f"| {float(cosines[feature, near]):.2f}: {names[near]} |"
        )
    return "\n".join(lines)


def tables() -> str:
    """All worlds."""
    return "\n\n".join(section(kind) for kind in EVERY_WORLD) + "\n\n"


def main() -> None:
    """Write the tables into the page."""
    put(PAGE, BEGIN, END, tables())


def without_numbers(text: str) -> str:
    """The text without measured values, which may differ in a digit between processors."""
    return re.sub(r"\| [^|]* % \| [^|]* \| [^|]* \|", "|", text)


if __name__ == "__main__":
    main()
