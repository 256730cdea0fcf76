"""A trainer: a function from activations to an SAE, saved in SAELens' format.

    @trainer(version=1)
    def topk(acts, folder, *, width: int, seed: int, k: int = 32):
        ...
        return Trained(tokens=..., epochs=...)

`width` and `seed` are set by the suite; the other keyword-only parameters are settings with
defaults. Settings that several trainers share can be a dataclass (`signature`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
from saebench_canon.plugin.signature import signature_of

if TYPE_CHECKING:
    from saebench_canon.plugin.activations import Acts

_ALWAYS_PASSED = ("width", "seed")


@dataclass(frozen=True)
class Trained:
    """How a training went: tokens, passes over the data, steps, last loss."""

    tokens: int
    epochs: float
    steps: int
    loss: float


@dataclass(frozen=True)
class Trainer:
    """A named, versioned function that trains one SAE and saves it into a folder."""

    name: str
    version: int
    function: Callable[..., Trained]
    settings: Mapping[str, Any]
    help: str

    def train(self, acts: Acts, folder: Path, *, width: int, seed: int, **settings: Any) -> Trained:
        """Train an SAE of the width and save it; the same seed gives the same weights."""
        return self.function(acts, folder, width=width, seed=seed, **settings)


def trainer(
    *, version: int, name: str | None = None
) -> Callable[[Callable[..., Trained]], Trainer]:
    """Make a trainer of a function; the function's name is the trainer's unless one is given."""

    def decorate(function: Callable[..., Trained]) -> Trainer:
        declared = signature_of(function, "trainer", name, always_passed=_ALWAYS_PASSED)
        if len(declared.inputs) != 2 or declared.always_passed != set(_ALWAYS_PASSED):
            raise CanonError(
                f"trainer '{declared.name}' must take (acts, folder, *, width, seed, …)",
            )
        return Trainer(
            name=declared.name,
            version=version,
            function=declared.call,
            settings=declared.settings,
            help=declared.help,
        )

    return decorate
