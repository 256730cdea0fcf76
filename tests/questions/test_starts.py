"""SAEs that began from the same rows count as one, whatever they are called."""

from __future__ import annotations

import pytest

from saebench_canon.questions.starts import Met, components


@pytest.mark.parametrize(
    ("met", "same"),
    [
        (Met(64, 40, 30, False), True),
        (Met(64, 40, 7, False), True),
        (Met(64, 40, 6, False), False),  # by chance there is about one
        (Met(200, 71, 7, False), False),  # below a tenth of the pairs
        (Met(200, 70, 7, False), True),
        (Met(64, 40, 30, True), False),  # sorted latents meet under equal numbers anyway
        (Met(15, 15, 15, False), False),
        (Met(64, 0, 0, False), False),
    ],
)
def test_one_start_takes_seven_pairs_of_one_number_and_a_tenth(met: Met, same: bool) -> None:
    assert met.same_start is same


def test_starts_are_connected_components_in_the_suites_order() -> None:
    sizes = {64: ("a", "b", "c", "d")}
    twin, other = Met(64, 40, 30, False), Met(64, 40, 1, False)
    pairs = {
        ("a", "b"): other, ("a", "c"): other, ("a", "d"): twin,
        ("b", "c"): other, ("b", "d"): other, ("c", "d"): twin,
    }  # fmt: skip
    starts, unknown = components(sizes, pairs)
    assert starts == {64: (("a", "c", "d"), ("b",))}
    assert unknown == frozenset()


def test_unknown_starts_count_apart_and_are_named() -> None:
    starts, unknown = components({64: ("a", "b")}, {("a", "b"): Met(64, 40, 40, True)})
    assert starts == {64: (("a",), ("b",))}
    assert unknown == {"a", "b"}


def test_sizes_have_starts_of_their_own() -> None:
    twin = Met(64, 40, 30, False)
    starts, _ = components({64: ("a",), 128: ("b",)}, {("a", "b"): twin})
    assert starts == {64: (("a",),), 128: (("b",),)}
