"""What a launcher is: a way to run shards of a suite elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Launcher:
    """Named; starts one command a shard and returns when they have been handed over."""

    name: str
    launch: Callable[[Sequence[Sequence[str]]], None]
    help: str = ""
