"""Families: which SAEs are compared with which, who gives to whom, and who bears witness."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.plugin.registry import load_registry
from saebench_canon.suite.axes import Axes, by_width, families, family_pairs, steps, witnesses
from saebench_canon.suite.cases import cases_of
from saebench_canon.suite.load import load_suite


@dataclass(frozen=True)
class One:
    name: str
    axes: Axes
    data: str | None = "d"


def saes(*counts: int, arch: str = "relu") -> list[One]:
    """So many seeds of the widths 64, 128, …"""
    return [
        One(f"{arch}{64 * 2**at}-{seed}", {"arch": arch, "width": 64 * 2**at, "seed": seed})
        for at, count in enumerate(counts)
        for seed in range(count)
    ]


def names(found: object) -> list[str]:
    return [f"{a.name}>{b.name}".replace("relu", "") for a, b in found]  # type: ignore[attr-defined]


def test_a_family_shares_data_and_all_axes_but_width_and_seed() -> None:
    many = [*saes(2, 1), *saes(1, arch="topk"), One("x", {"width": 64, "arch": "relu"}, "other")]
    found = [[sae.name for sae in family] for family in families([*many, One("y", {"seed": 0})])]
    assert found == [["relu64-0", "relu64-1", "relu128-0"], ["topk64-0"], ["x"]]


def test_pairs_of_a_family_are_at_most_two_sizes_apart_smaller_first() -> None:
    assert names(family_pairs(reversed(saes(2, 1)))) == ["64-0>64-1", "64-0>128-0", "64-1>128-0"]
    assert names(family_pairs(saes(1, 1, 1, 1))) == [
        "64-0>128-0", "64-0>256-0", "128-0>256-0", "128-0>512-0", "256-0>512-0",
    ]  # fmt: skip


def test_three_seeds_of_the_larger_give_to_the_smaller_and_to_one_another() -> None:
    assert names(steps(saes(1, 3))) == [
        "64-0>128-0", "64-0>128-1", "64-0>128-2", "128-0>128-1", "128-0>128-2", "128-1>128-0",
        "128-1>128-2", "128-2>128-0", "128-2>128-1",
    ]  # fmt: skip


def test_with_fewer_a_step_is_taken_both_ways() -> None:
    assert names(steps(saes(1, 1))) == ["64-0>128-0", "128-0>64-0"]
    assert names(steps(saes(3))) == []


@pytest.mark.parametrize(
    ("counts", "subject", "expected"),
    [
        ((1, 3), ("64-0", "128-0"), ["128-1", "128-2"]),
        ((1, 3), ("128-0", "128-1"), ["128-2"]),
        ((1, 1, 1), ("64-0", "128-0"), ["256-0"]),
        ((1, 1, 1), ("128-0", "64-0"), ["256-0"]),
        ((1, 2), ("64-0", "128-0"), ["128-1"]),
        ((1, 1), ("64-0", "128-0"), []),
        ((1, 3, 2), ("64-0", "128-0"), ["128-1", "128-2"]),
    ],
)
def test_witnesses(counts: tuple[int, ...], subject: tuple[str, str], expected: list[str]) -> None:
    many = saes(*counts)
    by_name = {sae.name: sae for sae in many}
    (family,) = families(many)
    chosen = witnesses(by_width(family), [by_name[f"relu{name}"] for name in subject])
    assert [sae.name.removeprefix("relu") for sae in chosen] == expected


SUITE = """
[data.w]
synthetic = "independent"
tokens = 512

[[sae]]
name = "w{{width}}-s{{seed}}"
{data}
train = {{ arch = "topk", k = 3, tokens = 1024 }}
axes = {{ width = [16, 32], seed = [0, 1, 2] }}

[[metric]]
name = "stitching"
settings.threshold = 0.6
{more}
"""


def counted(tmp_path: Path, more: str = "", data: str = 'data = "w"') -> dict[str, int]:
    path = tmp_path / "s.toml"
    path.write_text(SUITE.format(more=more, data=data))
    registry = load_registry(installed=False)
    suite = load_suite(path, registry)
    counts: dict[str, int] = {}
    for case in cases_of(suite, registry):
        counts[case.label] = counts.get(case.label, 0) + 1
        if case.metric.name in ("comparison", "insertion"):
            assert case.settings["threshold"] == 0.6
        if case.label == "insertion":
            assert {peer.axes["width"] for peer in case.peers} == {32}
    return counts


def test_what_complete_needs_is_planned_by_itself(tmp_path: Path) -> None:
    assert counted(tmp_path) == {
        "stitching": 3, "comparison": 15, "insertion": 15, "geometry": 6,
    }  # fmt: skip


def test_floors_false_plans_nothing(tmp_path: Path) -> None:
    assert counted(tmp_path, "floors = false") == {"stitching": 3}


def test_a_table_of_the_suite_is_not_planned_twice(tmp_path: Path) -> None:
    more = '[[metric]]\nname = "comparison"\nover = "family"\nsettings.threshold = 0.6'
    assert counted(tmp_path, more) == {
        "stitching": 3, "comparison": 15, "insertion": 15, "geometry": 6,
    }  # fmt: skip


def test_an_sae_that_is_there_twice_is_not_compared_with_itself(suite: Path) -> None:
    text = suite.read_text().split("[[metric]]")[0].replace("seed = [0, 1]", "seed = [0, 1, 2]")
    folder = suite.parent / "saes"
    for width in (24, 48):
        shutil.copytree(folder / f"w{width}-s1", folder / f"w{width}-s2")
    suite.write_text(text + '[[metric]]\nname = "meta_sae"\nsettings.steps = 2\n')
    plan = make_plan(suite, load_registry(installed=False), Store(suite.parent / "store"))
    pairs = [case.subject for case in plan.cases if case.label == "comparison"]
    assert len(pairs) == 15 - 2
    twice = {frozenset((f"relu-w{width}-s1", f"relu-w{width}-s2")) for width in (24, 48)}
    assert not twice & {frozenset(sae.name for sae in pair) for pair in pairs}


def test_the_condition_of_the_table_that_asks_is_kept(tmp_path: Path) -> None:
    assert counted(tmp_path, 'where.width = "<= 16"') == {"comparison": 3, "geometry": 3}
