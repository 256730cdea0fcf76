"""The built-in worlds, by their classes."""

from __future__ import annotations

from typing import cast

from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.world import World

EVERY_WORLD = [
    cast("type[World]", kind)
    for kind in load_registry(installed=False).data.values()
    if kind.named is not None
]
