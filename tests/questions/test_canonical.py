"""Which latents are canonical, on SAEs whose relations are written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saebench_canon.questions.canonical import COLUMNS, Listed, compared_with, listed
from saebench_canon.questions.canonical_latents import CANONICAL
from saebench_canon.questions.kinship import Kin, View
from saebench_canon.questions.relations import Family, Relation

THETA, NONE, YES = 0.7, 0.3, 0.9
FOUR = 4  # latents of each SAE


def relation(cosine: object = NONE, explained: object = 0.0, gated: object = False) -> Relation:
    """Latents with these cosines; a share that is explained without a first atom is a sum's."""
    cosines = np.broadcast_to(np.asarray(cosine, dtype=np.float64), (FOUR,))
    shares = np.broadcast_to(np.asarray(explained, dtype=np.float64), (FOUR,))
    gates = np.broadcast_to(np.asarray(gated, dtype=bool), (FOUR,))
    return Relation(cosines, np.zeros(FOUR), shares, gates)


def kin(
    sizes: Mapping[int, Sequence[str]],
    relations: Mapping[tuple[str, str], Relation],
    *,
    own: Mapping[str, Relation] | None = None,
    starts: Mapping[int, Sequence[tuple[str, ...]]] | None = None,
    twins: Mapping[str, Mapping[int, int]] | None = None,
) -> Kin:
    """SAEs compared as told; those of one size are of different starts unless `starts` says so."""
    names = [name for size in sizes.values() for name in size]
    latents = {name: np.arange(FOUR) for name in names}
    family = Family(dict(relations), THETA)
    view = View(family, latents, own or {}, {}, {}, {}, {}, {}, {})
    each = starts or {size: [(name,) for name in group] for size, group in sizes.items()}
    return Kin(
        {size: tuple(group) for size, group in sizes.items()},
        {size: tuple(group) for size, group in each.items()},
        frozenset(), view, view, frozenset(), {}, {}, dict.fromkeys(names, 0), twins or {},
    )  # fmt: skip


def canonical(found: Kin, sae: str, size: int) -> Listed:
    result = listed(found, sae, size)
    assert result is not None
    return result


def flags(found: Kin, sae: str, size: int) -> list[bool]:
    return canonical(found, sae, size).table["canonical"].tolist()


def test_found_by_every_other_seed_or_in_any_wider_sae() -> None:
    sizes = {8: ["a", "b", "c"], 16: ["x", "y"]}
    found = {
        ("a", "b"): relation([YES, YES, NONE, NONE]),
        ("a", "c"): relation([YES, NONE, YES, NONE]),
        ("a", "x"): relation([NONE, NONE, YES, NONE]),
        ("a", "y"): relation([NONE, NONE, NONE, NONE]),
    }
    assert flags(kin(sizes, found), "a", 8) == [True, False, True, False]
    table = canonical(kin(sizes, found), "a", 8).table
    assert list(table.columns) == list(COLUMNS)
    assert table["found_in"].tolist() == [2, 1, 1, 0]
    assert table["above"].tolist() == [0, 0, 1, 0]


def test_without_another_seed_and_a_wider_sae_none_is() -> None:
    found = {("x", "a"): relation(YES)}
    result = canonical(kin({8: ["a"], 16: ["x"]}, found), "x", 16)
    assert not result.against.confirms
    assert result.count == 0
    assert result.table["below"].tolist() == [1, 1, 1, 1]


def test_sums_of_own_latents_are_none() -> None:
    found = {("a", "b"): relation(YES)}
    own = {"a": relation(NONE, [0.95, 0.5, 0.95, 0.0], [False, False, True, False])}
    assert flags(kin({8: ["a", "b"]}, found, own=own), "a", 8) == [False, True, True, True]
    assert flags(kin({8: ["a", "b"]}, found), "a", 8) == [True] * 4
    assert not canonical(kin({8: ["a", "b"]}, found), "a", 8).tests_own


def test_a_sum_explains_about_as_much_as_the_twins_do() -> None:
    """Twins at cosine .9 explain .81: a sum of .75 is one, of .70 is none; a gated one never is."""
    found = {
        ("a", "b"): relation(YES),
        ("a", "x"): relation(NONE, [0.75, 0.70, 0.75, 0.61], [False, False, True, False]),
    }
    assert flags(kin({8: ["a", "b"], 16: ["x"]}, found), "a", 8) == [False, True, True, True]


def test_where_no_seed_finds_it_a_wider_sae_says_how_near_a_twin_is() -> None:
    found = {
        ("a", "b"): relation(NONE),
        ("a", "x"): relation(YES),
        ("a", "y"): relation(NONE, [0.75, 0.70, 0.0, 0.0]),
    }
    result = canonical(kin({8: ["a", "b"], 16: ["x"], 32: ["y"]}, found), "a", 8)
    assert result.table["sum_of_larger"].tolist() == [1, 0, 0, 0]


def test_half_of_the_larger_or_of_the_smaller_saes_decide() -> None:
    sums = relation(NONE, 0.95)
    none = relation(NONE, 0.0)
    sizes = {4: ["s", "t"], 8: ["a", "b"], 16: ["x", "y", "z"]}
    found = {("a", "b"): relation(YES), ("a", "s"): none, ("a", "t"): none}
    one = {**found, ("a", "x"): sums, ("a", "y"): none, ("a", "z"): none}
    assert flags(kin(sizes, one), "a", 8) == [True] * 4
    two = {**one, ("a", "y"): sums}
    assert flags(kin(sizes, two), "a", 8) == [False] * 4
    below = {**one, ("a", "s"): sums}
    assert flags(kin(sizes, below), "a", 8) == [False] * 4


def test_a_twin_is_no_other_seed() -> None:
    found = {("a", "b"): relation(YES), ("b", "a"): relation(YES)}
    together = kin({8: ["a", "b"]}, found, starts={8: [("a", "b")]})
    for sae in ("a", "b"):
        assert compared_with(together, sae, 8).others == ()
        assert canonical(together, sae, 8).count == 0
    found |= {("a", "c"): relation(YES), ("b", "c"): relation([YES, NONE, NONE, NONE])}
    found |= {("c", "a"): relation(YES)}
    three = kin({8: ["a", "b", "c"]}, found, starts={8: [("a", "b"), ("c",)]})
    assert compared_with(three, "b", 8).others == ("c",)
    assert compared_with(three, "c", 8).others == ("a",)
    assert flags(three, "b", 8) == [True, False, False, False]


def test_an_sae_that_is_not_fit_says_nothing() -> None:
    found = {("a", "b"): relation(YES), ("a", "c"): relation(NONE), ("a", "x"): relation(NONE)}
    sizes = {8: ["a", "b", "c"], 16: ["x"]}
    assert flags(kin(sizes, found), "a", 8) == [False] * 4
    result = listed(kin(sizes, found), "a", 8, without={"c", "x"})
    assert result is not None
    assert result.count == 4
    assert result.against.larger == ()


def test_a_duplicate_has_the_tests_of_what_stands_for_it_and_is_not_canonical() -> None:
    found = {("a", "b"): relation(YES)}
    result = canonical(kin({8: ["a", "b"]}, found, twins={"a": {7: 2}}), "a", 8)
    assert result.table["latent"].tolist() == [0, 1, 2, 3, 7]
    double = result.table.iloc[-1]
    assert (double["twin_of"], double["found_in"], bool(double["canonical"])) == (2, 1, False)
    assert result.count == 4


def test_an_sae_that_was_not_compared_has_no_list() -> None:
    lonely = kin({8: ["a"]}, {})
    assert canonical(lonely, "a", 8).count == 0
    lonely.raw.latents.pop("a")  # type: ignore[attr-defined]
    assert listed(lonely, "a", 8) is None


@given(st.integers(0, 10_000))
def test_more_sums_and_less_found_never_add_a_latent(seed: int) -> None:
    generator = np.random.default_rng(seed)

    def drawn(share: float) -> Relation:
        return relation(
            np.where(generator.random(FOUR) < 0.5, YES, NONE), generator.random(FOUR) * share
        )

    sizes = {8: ["a", "b"], 16: ["x"]}
    found = {("a", "b"): drawn(0), ("a", "x"): drawn(1)}
    own = {"a": drawn(1)}
    before = flags(kin(sizes, found, own=own), "a", 8)
    harder = {"a": relation(NONE, np.maximum(own["a"].explained, 0.9))}
    lost = {**found, ("a", "b"): relation(NONE)}
    for after in (
        flags(kin(sizes, found, own=harder), "a", 8), flags(kin(sizes, lost, own=own), "a", 8)
    ):  # fmt: skip
        assert all(was or not now for was, now in zip(before, after, strict=True))


def test_the_table_is_written_as_the_contract_says() -> None:
    found = {("a", "b"): relation(YES)}
    table = canonical(kin({8: ["a", "b"]}, found), "a", 8).table
    assert isinstance(table, pd.DataFrame)
    assert table.to_csv(index=False).splitlines()[:2] == [
        "sae,latent,found_in,above,below,sum_of_larger,sum_of_smaller,sum_of_own,twin_of,canonical",
        "a,0,1,0,0,0,0,False,-1,True",
    ]


@pytest.mark.parametrize("word", ["listed", "not-judged"])
def test_the_question_declares_its_words(word: str) -> None:
    assert word in CANONICAL.words
