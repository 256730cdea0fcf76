"""Published values stand beside measured ones, under the line they belong to, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up_run as run
import pandas as pd
import pytest
from stated_margins import answered

from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.results import cases_of_run, keep_run, last_run, rows_of
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.published import Published, fold
from saebench_canon.plugin.registry import Registry, load_registry
from saebench_canon.plugin.row import Row
from saebench_canon.reports.table_formats import html, long, markdown
from saebench_canon.reports.terminal import as_published, text
from saebench_canon.tables.summarise import summarise

L0 = """
[[reference]]
score = "fidelity.l0"
axis = "width"
values = { 24 = 5, 48 = 7.5 }
source = "the SAEs' registry"
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.fixture
def planned(suite: Path, registry: Registry) -> Callable[..., Plan]:
    """The plan of the small suite with more TOML below it."""
    before = suite.read_text()

    def make(more: str, **how: Any) -> Plan:
        suite.write_text(before + more)
        return make_plan(suite, registry, Store(suite.parent / "store"), **how)

    return make


def told(plan: Plan) -> dict[tuple[str, ...], dict[str, Any]]:
    """The published values of each case that has some."""
    return {
        (case.label, *case.subject): case.to_json()["references"]
        for case in plan.listed()
        if case.references
    }


def test_a_value_belongs_to_the_cases_at_its_place(planned: Callable[..., Plan]) -> None:
    source = "the SAEs' registry"
    found = told(planned(L0))
    assert found == {
        ("fidelity", f"relu-w{width}-s{seed}"): {"l0": {"value": value, "source": source}}
        for width, value in ((24, 5), (48, 7.5))
        for seed in (0, 1)
    }


def test_a_step_stands_at_its_larger_sae(planned: Callable[..., Plan]) -> None:
    more = L0.replace("fidelity.l0", "stitching.novel_share").replace("24 = 5, ", "")
    assert [key[1:] for key in told(planned(more))] == [
        ("relu-w24-s0", "relu-w48-s0"), ("relu-w24-s1", "relu-w48-s1"),
    ]  # fmt: skip


def test_where_keeps_some_saes(planned: Callable[..., Plan]) -> None:
    found = told(planned(L0 + "where = { seed = 1 }\n"))
    assert [subject for _, subject in found] == ["relu-w24-s1", "relu-w48-s1"]


def test_published_values_are_no_part_of_a_case(planned: Callable[..., Plan]) -> None:
    assert planned("").ids == planned(L0).ids


def test_a_suite_may_take_a_part_of_a_ladder(planned: Callable[..., Plan]) -> None:
    plan = planned(L0.replace("5,", "5, 96 = 9,"), settings=["sae.axes.width=[24]"])
    assert {subject for _, subject in told(plan)} == {"relu-w24-s0", "relu-w24-s1"}


def test_published_values_of_an_extended_suite_are_added(
    suite: Path, planned: Callable[..., Plan], registry: Registry
) -> None:
    planned(L0)
    child = suite.with_name("child.toml")
    other = L0.replace("fidelity.l0", "fidelity.explained_variance")
    child.write_text(f'extends = "{suite.name}"\n{other}')
    plan = make_plan(child, registry, Store(suite.parent / "store"))
    assert {tuple(each) for each in told(plan).values()} == {("l0", "explained_variance")}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("fidelity.l0", "fidelty.l0", r"no metric 'fidelty' in this suite .*'fidelity"),
        ("fidelity.l0", "fidelity.lo", r"'fidelity' has no score 'lo' \(.*\). Known: cosine"),
        ('axis = "width"', 'axis = "widht"', r"no SAE has the axis 'widht' .*'width'\?"),
        ("24 = 5", "small = 5", r"'small' is no value of the axis 'width'"),
        ("24 = 5", '24 = "5"', r"the value at '24' must be a number, got '5'"),
        ("24 = 5", "24 = nan", r"the value at '24' must be a number, got nan"),
        ("24 = 5, 48 = 7.5", "", r"'values' is empty"),
        ("24 = 5, 48 = 7.5", "96 = 5", r"no case of fidelity.l0 has one of these values of 'width'"
            r".*Known: 24, 48"),
        ("source =", "sauce =", r"'source' is missing"),
        ("source = \"the SAEs' registry\"", 'source = " "', r"'source' is empty"),
        ("source =", "from = 1\nsource =", r"unknown key 'from'"),
        ("source =", 'where = { arch = "relu" }\nsource =', r"no SAE has the axis 'arch'"),
        ("\n[[ref", f"{L0}\n[[ref", r"two published values of fidelity.l0 for relu"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_when_the_suite_is_planned(
    planned: Callable[..., Plan], old: str, new: str, sentence: str
) -> None:
    with pytest.raises(CanonError, match=sentence) as caught:
        planned(L0.replace(old, new))
    assert "[[reference]]" in str(caught.value)


def test_a_run_keeps_them_and_its_rows_carry_them(planned: Callable[..., Plan]) -> None:
    plan = planned(L0)
    keep_run(plan, name="small.toml", flags={})
    rows = rows_of(cases_of_run(last_run(plan.store, None)), plan.store, load_registry().metrics)
    with_them = [row for row in rows if row.reference is not None]
    assert {(row.score, row.axes["width"], row.reference.value) for row in with_them} == {  # type: ignore[index, union-attr]
        ("l0", 24, 5), ("l0", 48, 7.5),
    }  # fmt: skip
    for row in rows:
        shown = json.loads(json.dumps(row.to_dict()))
        assert ("reference" in shown) == (row.reference is not None)
        assert Row.from_dict(shown).reference == row.reference


def rows(*, widths: tuple[int, ...] = (128, 256), archs: tuple[str, ...] = ("relu",)) -> list[Any]:
    """A made-up run in which L0 and explained variance of the smallest SAE are published."""
    found = run.rows(archs=archs, widths=(128, 256), seeds=(0, 1, 2))
    values = {"l0": 6, "explained_variance": 0.71}
    for row in found:
        at = row["members"][0]
        if row["label"] == "fidelity" and row["score"] in values and at["width"] in widths[:1]:
            value, source = values[row["score"]], "a paper"
            row["reference"] = {"value": value, "source": source}
    return found


GOLDEN = """\
fidelity v3: How well one SAE reconstructs the activations, and at what price.
width        explained_variance ↑  l0        dead_share ↓
───────────  ────────────────────  ────────  ────────────
128          .688 ± .006           6.1 ± .1  .011 ± .003
  published  .71                   6
  pca        .613
256          .739 ± .006           6.1 ± .1  .033 ± .002
  pca        .613
3 seeds, ± by Student's t over them
published: a paper
"""


def test_the_line_of_published_values_is_the_golden_one() -> None:
    page = text(summarise(rows(), run.declared(), tables=run.tables))
    assert GOLDEN in page


def test_a_value_that_was_not_published_is_an_empty_cell() -> None:
    page = text(summarise(rows(), run.declared(), tables=run.tables), all_scores=True)
    (line,) = [each for each in page.splitlines() if each.strip().startswith("published  ")]
    assert line.split() == ["published", ".71", "6"]


def test_answers_do_not_hear_of_them() -> None:
    without = [{key: value for key, value in row.items() if key != "reference"} for row in rows()]
    both = [summarise(each, run.declared(), tables=run.tables) for each in (rows(), without)]
    pages = [text(summary, answered(summary)).splitlines() for summary in both]
    assert any(line.startswith("unique?") for line in pages[0])
    kept = [line for line in pages[0] if "published" not in line]
    assert [" ".join(line.split()) for line in kept if "─" not in line] == [
        " ".join(line.split()) for line in pages[1] if "─" not in line
    ]


def test_they_leave_the_terminal_too() -> None:
    found = summarise(rows(), run.declared(), tables=run.tables)
    assert "(published 6)" in markdown(found)
    assert "(published .71, pca .613)" in markdown(found)
    assert "published: a paper" in markdown(found)
    assert "published: a paper" in html(found)
    table = long(found)
    kept = table[table.published.notna()]
    assert list(zip(kept.line, kept.score, kept.published, kept.published_source, strict=True)) == [
        ("128", "explained_variance", 0.71, "a paper"), ("128", "l0", 6.0, "a paper"),
    ]  # fmt: skip
    assert isinstance(table, pd.DataFrame)


def test_two_sources_are_told_apart() -> None:
    mixed = rows()
    for row in mixed:
        if row.get("reference") and row["score"] == "l0":
            row["reference"] = {"value": 6, "source": "another"}
    page = text(summarise(mixed, run.declared(), tables=run.tables))
    assert "published explained_variance: a paper; published l0: another\n" in page


def test_a_line_has_one_value() -> None:
    one, two = Published(1, "a"), Published(2, "b")
    assert fold([None, None]) is None
    assert fold([one, None, one]) == one
    assert fold([one, two]) == Published(1.5, "a; b")


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [(36, 1, "36  "), (0.61, 3, ".61 "), (0.6141, 3, ".614"), (36.0, 1, "36.0"), (5, 0, "5"),
     (1e-7, 3, ".000"), (0.75, 0, "1")],
)  # fmt: skip
def test_published_decimals_are_neither_added_nor_dropped(
    value: float, digits: int, shown: str
) -> None:
    assert as_published(value, digits) == shown
