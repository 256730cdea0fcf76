"""`check` of a world: the built-in ones conform, and what does not is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from every_world import EVERY_WORLD

from saebench_canon.cli.main import main
from saebench_canon.data.worlds.firing import Independent
from saebench_canon.plugin.world import World
from saebench_canon.testing import check_world, examine_world


@pytest.mark.parametrize("kind", EVERY_WORLD, ids=lambda kind: kind.named)
def test_the_built_in_worlds_conform(kind: type[World]) -> None:
    check_world(kind)


@dataclass(frozen=True)
class Wrong(World):
    """Whatever a test makes of it."""

    named: ClassVar[str] = "wrong"


def wrong(**methods: Any) -> type[World]:
    """A world with these methods."""
    return type("Wrong", (Wrong,), {"__doc__": "Wrong in one way.", **methods})


def silent(self: World, place: Any, chance: Any) -> Any:
    return torch.zeros(len(place), self.count, dtype=torch.bool)


def global_fires(self: World, place: Any, chance: Any) -> Any:
    return torch.rand(len(place), self.count) < 0.1


def by_length(self: World, place: Any, chance: Any) -> Any:
    return torch.full((len(place), self.count), float("nan"))


@pytest.mark.parametrize(
    ("kind", "check", "message"),
    [
        (wrong(__doc__=""), "it documents what it is", "no docstring"),
        (wrong(fires=silent), "features fire, and children with their parents", "no feature fires"),
        (
            wrong(codes=by_length),
            "features fire, and children with their parents",
            "a code that is negative or none",
        ),
        (wrong(fires=global_fires), "the global random state is unchanged", "torch"),
        (
            wrong(fires=global_fires),
            "the same settings give the same tokens, another seed others",
            "at a second draw the tokens differ",
        ),
        (
            wrong(parents=lambda self: torch.zeros(self.count, dtype=torch.int64)),
            "features fire, and children with their parents",
            "a child fires without its parent",
        ),
        (
            wrong(names=lambda self: ["a"] * self.count),
            "features have directions, names and parents",
            "128 features have 1 names",
        ),
        (
            wrong(directions=lambda self, chance: torch.zeros(self.count, self.d)),
            "features have directions, names and parents",
            "a row of zeros",
        ),
        (
            wrong(directions=lambda self, chance: torch.ones(3, 3)),
            "features have directions, names and parents",
            r"directions are [3, 3], not [128, 64]",
        ),
    ],
)
def test_what_does_not_hold_is_found(kind: type[World], check: str, message: str) -> None:
    finding = examine_world(kind)[check]
    assert finding.result == "failed"
    assert message in finding.message


def test_a_setting_without_a_default_is_found() -> None:
    bare = dataclass(frozen=True, kw_only=True)(
        type("Bare", (Wrong,), {"__doc__": "Bare.", "__annotations__": {"more": int}})
    )
    assert examine_world(bare)["its settings have defaults"].result == "failed"


def test_settings_replace_defaults() -> None:
    message = examine_world(Independent, settings={"features": 12, "l0": 2.0})[
        "features have directions, names and parents"
    ].message
    assert message == "12 features in 64 dimensions"


def test_check_prints_the_table_of_a_world(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "pairs", "--set", "together=0.5"]) == 0
    assert "pairs: 8 checks, none failed." in capsys.readouterr().out
    assert main(["check", "pears"]) == 4
    assert "Did you mean 'pairs'?" in capsys.readouterr().err
