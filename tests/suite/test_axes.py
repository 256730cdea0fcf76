from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from saebench_canon.errors import CanonError
from saebench_canon.suite.axes import all_pairs, condition, fill, multiply, pairs


@dataclass
class Sae:
    name: str
    axes: dict[str, object] = field(default_factory=dict)
    data: str | None = "d"


def test_axes_multiply_in_written_order() -> None:
    points = list(multiply({"arch": ["relu", "topk"], "width": [1, 2]}, []))
    assert [tuple(point.values()) for point in points] == [
        ("relu", 1), ("relu", 2), ("topk", 1), ("topk", 2),
    ]  # fmt: skip


def test_exclude_drops_what_it_matches() -> None:
    points = list(
        multiply({"arch": ["relu", "topk"], "width": [1, 2]}, [{"arch": "relu", "width": 2}])
    )
    assert ("relu", 2) not in [tuple(point.values()) for point in points]
    assert len(points) == 3


def test_pairs_are_neighbours_by_value_smaller_first() -> None:
    saes = [Sae("c", {"width": 32}), Sae("a", {"width": 8}), Sae("b", {"width": 16})]
    assert [(a.name, b.name) for a, b in pairs(saes, "width")] == [("a", "b"), ("b", "c")]


def test_pairs_hold_the_other_axes_and_the_data_fixed() -> None:
    saes = [
        Sae("a0", {"width": 8, "seed": 0}), Sae("a1", {"width": 8, "seed": 1}),
        Sae("b0", {"width": 16, "seed": 0}), Sae("other", {"width": 16, "seed": 1}, data="e"),
    ]  # fmt: skip
    assert [(a.name, b.name) for a, b in pairs(saes, "width")] == [("a0", "b0")]


def test_all_pairs_are_every_two() -> None:
    saes = [Sae(str(seed), {"seed": seed}) for seed in (2, 0, 1)]
    assert [(a.name, b.name) for a, b in all_pairs(saes, "seed")] == [
        ("0", "1"), ("0", "2"), ("1", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value", "kept"),
    [("<= 3072", 3072, True), ("< 3072", 3072, False), ("!= relu", "topk", True),
     ("== relu", "topk", False), ("relu", "relu", True), (8, 8, True), (8, 16, False),
     (">= 1_000", 1024, True), ("== 8", 8, True), ([8, 16], 16, True), ([8, 16], 12, False),
     (["relu", "< 3"], 2, True)],
)  # fmt: skip
def test_conditions(text: object, value: object, kept: bool) -> None:
    assert condition(text, where="here")(value) is kept  # type: ignore[arg-type]


def test_a_template_naming_no_axis_is_an_error_with_the_nearest() -> None:
    with pytest.raises(CanonError, match=r"\{widht\}.*Did you mean 'width'"):
        fill("sae-{widht}", {"width": 8}, key="name", where="suite.toml")
