"""What a world promises, checked on a few thousand tokens of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.data_keys import keys_of
from saebench_canon.plugin.world import Drawing, World
from saebench_canon.plugin_kit.findings import WrongError, check
from saebench_canon.plugin_kit.surroundings import (
    SLOW,
    fresh_imports,
    leaves_random_states,
    module_name,
)

TOKENS = 6000  # more than a block, and no multiple of one
PURPOSE = "scored"


@dataclass
class WorldUnderTest:
    """A world, and settings for it."""

    kind: type[World]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def world(self) -> World:
        """The world with these settings."""
        return self.kind(**{self.kind.kind(): self.kind.named or "", **self.settings})

    def opened(self, world: World) -> Drawing:
        """The world, with what it needs read."""
        return world.opened(DataSpec("checked", "check", world))

    @cached_property
    def drawing(self) -> Drawing:
        """The world with these settings, opened once."""
        return self.opened(self.world)

    @cached_property
    def first(self) -> tuple[Tensor, Tensor]:
        """The draw with which others are compared."""
        return self.drawn(self.drawing)

    def drawn(self, drawing: Drawing, tokens: int = TOKENS) -> tuple[Tensor, Tensor]:
        """Activations [n, d] and dense codes [n, F]."""
        blocks = list(drawing.blocks(tokens, PURPOSE))
        x = torch.cat([block.x for block in blocks])
        return x, torch.cat([block.codes.dense() for block in blocks])


@check("it documents what it is")
def documented(candidate: WorldUnderTest) -> str:
    """The class's docstring is the world's help."""
    doc = candidate.kind.__dict__.get("__doc__") or ""
    if not doc.strip() or doc.startswith(f"{candidate.kind.__name__}("):
        raise WrongError("the class has no docstring, which is the world's help")
    return str(doc.strip().partition("\n")[0])


@check("its settings have defaults")
def settings(candidate: WorldUnderTest) -> str:
    """`synthetic = NAME` alone must do."""
    own = [key for key in keys_of(candidate.kind) if key.name != candidate.kind.kind()]
    for key in own:
        if key.required:
            raise WrongError(f"the setting '{key.name}' has no default")
    common = {key.name: key.default for key in keys_of(World)}
    differing = [key for key in own if key.default != common.get(key.name, math.nan)]
    return ", ".join(f"{key.name} = {key.default!r}" for key in differing) or "those of every world"


@check("importing it imports no slow library")
def slow_imports(candidate: WorldUnderTest) -> str:
    """`plan`, `show` and `ls` import every world."""
    at_import, _ = fresh_imports(candidate.kind)
    if at_import:
        raise WrongError(
            f"importing {module_name(candidate.kind)} imports {' and '.join(at_import)}:"
            " move the import into a method"
        )
    return f"neither {SLOW[0]} nor {', '.join(SLOW[1:])}"


@check("features have directions, names and parents")
def features(candidate: WorldUnderTest) -> str:
    """Of the right shapes; none is a row of zeros, and no two have one name."""
    world, drawing = candidate.world, candidate.drawing
    rows, names, parents = drawing.rows(), list(drawing.names()), drawing.parents()
    count, d = rows.shape
    if drawing is world and (count, d) != (world.count, world.d):
        raise WrongError(f"directions are {[count, d]}, not {[world.count, world.d]}")
    if not bool(((rows.norm(dim=1) - 1).abs() < 1e-4).all()):
        raise WrongError("a feature's direction is a row of zeros, or not finite")
    if len(names) != count or len(set(names)) != len(names):
        raise WrongError(f"{count} features have {len(set(names))} names")
    if tuple(parents.shape) != (count,) or parents.is_floating_point():
        raise WrongError(f"parents are {list(parents.shape)} of {parents.dtype}")
    if not bool(((parents >= -1) & (parents < count)).all()):
        raise WrongError("a parent is no feature")
    return f"{count} features in {d} dimensions"


@check("features fire, and children with their parents")
def firing(candidate: WorldUnderTest) -> str:
    """Codes are finite and not negative; activations are their sums and finite."""
    x, codes = candidate.first
    if not bool(torch.isfinite(x).all()) or not bool(torch.isfinite(codes).all()):
        raise WrongError("an activation or a code is not finite")
    rates = (codes > 0).double().mean(dim=0)
    if not bool((rates > 0).any()):
        raise WrongError("no feature fires")
    parents = candidate.drawing.parents()
    children = (parents >= 0).nonzero()[:, 0]
    alone = (codes[:, children] > 0) & (codes[:, parents[children]] == 0)
    if bool(alone.any()):
        raise WrongError("a child fires without its parent")
    silent = int((rates == 0).sum())
    said = f", {silent} of them never in {TOKENS:,} tokens" if silent else ""
    return f"{float((codes > 0).sum(dim=1).double().mean()):.1f} features on a token{said}"


@check("the same settings give the same tokens, another seed others")
def same_tokens(candidate: WorldUnderTest) -> str:
    """To the last bit."""
    again = candidate.drawn(candidate.opened(candidate.world))
    if not all(torch.equal(*both) for both in zip(candidate.first, again, strict=True)):
        raise WrongError("at a second draw the tokens differ: draw from the given generator only")
    if "seed" in candidate.kind.without:
        return f"{TOKENS:,} tokens; it has no seed"
    other = candidate.drawn(
        candidate.opened(replace(candidate.world, seed=candidate.world.seed + 1))
    )
    if torch.equal(candidate.first[1], other[1]):
        raise WrongError("another seed fires the same features")
    return f"{TOKENS:,} tokens"


@check("more tokens begin with the same ones")
def prefixes(candidate: WorldUnderTest) -> str:
    """The number of tokens changes none of them."""
    few = candidate.drawn(candidate.drawing, TOKENS // 3)
    if not all(
        torch.equal(one, all_[: len(one)]) for one, all_ in zip(few, candidate.first, strict=True)
    ):
        raise WrongError("the first tokens depend on how many follow")
    return f"{TOKENS // 3:,} of {TOKENS:,}"


@check("the global random state is unchanged")
def random_state(candidate: WorldUnderTest) -> str:
    """A world's randomness comes from the generators that it is given."""
    drawing = candidate.drawing
    leaves_random_states(lambda: candidate.drawn(drawing, 300), drawing.rows)
    return "for random, numpy and torch"


CHECKS = (
    documented, settings, slow_imports, features, firing, same_tokens, prefixes, random_state,
)  # fmt: skip
