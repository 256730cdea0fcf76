"""What functions declare by their signatures, and settings that stand in a group."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from saebench_canon.errors import CanonError
from saebench_canon.plugin.input import made
from saebench_canon.plugin.metric import Score, metric
from saebench_canon.plugin.signature import InputGroup, signature_of


@dataclass(frozen=True)
class Pace:
    """How fast."""

    lr: float = 0.5
    kind: Literal["slow", "fast"] = "slow"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise CanonError(f"lr is {self.lr}, not above 0")


@dataclass(frozen=True)
class Clash:
    """Has a setting of `Pace`."""

    lr: float = 1.0


@dataclass(frozen=True)
class Sides(InputGroup):
    """Two SAEs, and their codes where there are."""

    left: Any
    right: Any
    left_codes: Any = None


@dataclass(frozen=True)
class Plain:
    """A dataclass that is one input."""

    value: int


def walked(acts: Any, codes: Any = None, *, steps: int = 3, pace: Pace = Pace(lr=0.25)) -> Any:
    """Walk.

    At a pace.
    """
    return acts, codes, steps, pace


def test_a_group_is_its_fields_with_the_values_of_its_default() -> None:
    declared = signature_of(walked, "metric")
    assert (declared.name, declared.help) == ("walked", "Walk.\n\nAt a pace.")
    assert (declared.inputs, declared.optional) == (("acts", "codes"), {"codes"})
    assert declared.settings == {"steps": 3, "lr": 0.25, "kind": "slow", "limit": None}
    assert declared.kinds == {
        "steps": "int",
        "lr": "float",
        "kind": "Literal['slow', 'fast']",
        "limit": "int | None",
    }


def test_the_function_gets_the_group_as_an_instance() -> None:
    call = signature_of(walked, "metric").call
    assert call(1) == (1, None, 3, Pace(lr=0.25))
    assert call(1, 2, kind="fast", steps=5) == (1, 2, 5, Pace(0.25, "fast"))
    assert call(1, lr=4.0, limit=7) == (1, None, 3, Pace(4.0, "slow", 7))
    with pytest.raises(CanonError, match="lr is 0"):
        call(1, lr=0)
    with pytest.raises(TypeError, match="stride"):
        call(1, stride=2)


def test_a_function_with_a_group_looks_like_one_with_all_its_settings() -> None:
    call = signature_of(walked, "metric").call
    assert list(inspect.signature(call).parameters) == [
        "acts", "codes", "steps", "lr", "kind", "limit",
    ]  # fmt: skip
    assert inspect.unwrap(call) is walked


def test_a_function_without_a_group_is_called_as_it_is() -> None:
    def plain(acts: Any, *, steps: int = 3) -> None: ...

    assert signature_of(plain, "metric").call is plain


def test_a_metric_has_a_group_s_settings() -> None:
    @metric(of="sae", version=1, scores=[Score("rate")])
    def rate(sae: Any, *, pace: Pace = Pace()) -> dict[str, float]:
        """The rate."""
        return {"rate": pace.lr}

    assert rate.settings == {"lr": 0.5, "kind": "slow", "limit": None}
    assert rate.measure(None, **{**rate.settings, "lr": 2.0}) == {"rate": 2.0}


def test_parameters_that_the_caller_gives_are_no_settings() -> None:
    def train(acts: Any, folder: Any, *, width: int, depth: int = 2) -> None: ...

    declared = signature_of(train, "trainer", always_passed=("width", "seed"))
    assert (declared.always_passed, declared.settings) == ({"width"}, {"depth": 2})


def test_a_group_of_inputs_is_its_fields() -> None:
    def early(sides: Sides, acts: Any = None) -> Any:
        return sides, acts

    declared = signature_of(early, "metric")
    assert declared.inputs == ("left", "right", "left_codes", "acts")
    assert declared.optional == {"left_codes", "acts"}
    assert declared.call(1, 2, 3, 4) == (Sides(1, 2, 3), 4)
    assert declared.call(1, right=2, acts=5) == (Sides(1, 2), 5)
    with pytest.raises(TypeError, match="right"):
        declared.call(1)


def test_a_dataclass_that_is_no_group_of_inputs_is_one_input() -> None:
    def one(plain: Plain, *, pace: Pace = Pace()) -> Any:
        return plain, pace

    declared = signature_of(one, "metric")
    assert declared.inputs == ("plain",)
    assert declared.call(Plain(3), lr=2.0) == (Plain(3), Pace(2.0))


def bare(acts: Any, *, steps: int) -> None: ...
def loose(*acts: Any) -> None: ...
def twice(*, lr: float = 1.0, pace: Pace = Pace()) -> None: ...
def again(sides: Sides, left: Any = None) -> None: ...
def late(sides: Sides, acts: Any) -> None: ...
def both(*, pace: Pace = Pace(), clash: Clash = Clash()) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (bare, "metric 'bare': the setting 'steps' has no default"),
        (loose, r"metric 'loose' takes \*acts; name each parameter"),
        (twice, "metric 'twice' declares 'lr' twice"),
        (both, "metric 'both' declares 'lr' twice"),
        (late, "metric 'late': the input 'acts' has no default, but the input before it does"),
        (again, "metric 'again' declares 'left' twice"),
    ],
)
def test_what_cannot_be_declared(function: Callable[..., Any], says: str) -> None:
    with pytest.raises(CanonError, match=says):
        signature_of(function, "metric")


def test_an_input_has_no_settings() -> None:
    def times(codes: Any, *, floor: float = 0.0) -> None: ...

    with pytest.raises(CanonError, match="input 'times' takes 'floor' by keyword only"):
        made(per="sae", version=1)(times)
