"""Rows of a made-up run fold into the tables one would write by hand."""

from __future__ import annotations

import json
from random import Random
from statistics import fmean
from typing import Any

import made_up_run as run
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saebench_canon.plugin.metric import Mark, Metric, Score
from saebench_canon.plugin.row import Row
from saebench_canon.plugin.table_line import Cell, Key
from saebench_canon.tables.summarise import summarise
from saebench_canon.tables.summary import Block, Summary, Table


def summary(rows: list[dict[str, Any]]) -> Summary:
    return summarise(rows, run.declared(), tables=run.tables)


def table(block: Block, label: str) -> Table:
    return next(table for table in block.tables if table.label == label)


def cell(block: Block, label: str, key: Key, score: str) -> Cell:
    return next(line.cells[score] for line in table(block, label).lines if line.key == key)


def of_sae(name: str, score: str = "explained_variance", **more: Any) -> dict[str, Any]:
    row = run.row(
        "fidelity", "fidelity", "sae", "each", [{"arch": "", "width": 0, "seed": 0}], score
    )
    return row | {"subject": [name], "axes": {}, "members": [{}], "value": 0.5} | more


def test_a_row_survives_json() -> None:
    row = run.rows()[0] | {"marks": [{"kind": "caveat", "reason": "thin"}]}
    read = Row.from_dict(json.loads(json.dumps(row)))
    assert read.marks == (Mark("caveat", "thin"),)
    assert read.to_dict() == row


def test_a_row_without_members_reads_its_axes() -> None:
    row = run.rows()[0]
    bare = {key: value for key, value in row.items() if key not in ("members", "marks", "over")}
    bare["axes"] = {"arch": "relu", "width": 128, "seed": 0}
    assert Row.from_dict(bare).along("width") == (128,)


def test_a_block_is_an_architecture_and_a_line_a_size_or_a_step() -> None:
    tables = summary(run.rows())
    assert [block.title for block in tables.blocks] == ["relu", "topk", "batchtopk"]
    block = tables.blocks[0]
    assert [table.label for table in block.tables] == [
        "fidelity", "ladder", "noise", "meta_sae", "composition", "mixing", "seed_matching",
    ]  # fmt: skip
    assert [line.title for line in table(block, "fidelity").lines] == ["128", "256", "512"]
    assert [line.title for line in table(block, "ladder").lines] == ["128 → 256", "256 → 512"]
    assert [line.title for line in table(block, "noise").lines] == ["128", "256", "512"]
    assert [line.key for line in table(block, "seed_matching").lines] == [(128,), (256,), (512,)]


def test_a_cell_is_the_mean_over_seeds_with_its_null() -> None:
    rows = run.rows()
    explained = cell(summary(rows).blocks[0], "fidelity", (128,), "explained_variance")
    values = [
        row["value"]
        for row in run.where(rows, label="fidelity", score="explained_variance")
        if row["subject"][0].startswith("relu-w128-")
    ]
    assert explained.estimate is not None
    assert explained.estimate.value == pytest.approx(fmean(values))
    assert (explained.estimate.n, explained.estimate.kind) == (3, "t")
    assert explained.null is not None
    assert explained.null.value == pytest.approx(0.613)


def test_a_step_has_the_floors_of_both_its_sizes() -> None:
    block = summary(run.rows()).blocks[1]
    step = cell(block, "ladder", (128, 256), "novel_share")
    assert step.floor == cell(block, "noise", (256,), "novel_share").estimate
    assert step.floor_small == cell(block, "noise", (128,), "novel_share").estimate
    assert step.floor is not None
    assert step.floor.kind == "jackknife"
    assert table(block, "noise").is_floor
    assert not table(block, "ladder").is_floor


def test_a_floor_with_other_settings_is_not_joined_but_noted() -> None:
    rows = run.rows(archs=["relu"])
    for row in rows:
        if row["label"] == "noise":
            row["settings"] = {"threshold": 0.4}
    block = summary(rows).blocks[0]
    assert cell(block, "ladder", (128, 256), "novel_share").floor is None
    assert not table(block, "noise").is_floor
    assert "the settings differ (threshold)" in " ".join(note.reason for note in block.notes)


def test_a_groups_error_is_over_its_seeds() -> None:
    mcc = cell(summary(run.rows()).blocks[0], "seed_matching", (128,), "mcc").estimate
    assert mcc is not None
    assert mcc.half_width == pytest.approx(4.302653 * 0.008)
    assert mcc.n == 3


def test_case_seeds_do_not_count_as_training_seeds() -> None:
    once = [row for row in run.rows(archs=["relu"]) if row["label"] == "meta_sae"]
    second_seed = [row | {"seed": 1, "value": row["value"] + 0.02} for row in once]
    meta_sae = table(summary(once + second_seed).blocks[0], "meta_sae")
    estimate = meta_sae.lines[0].cells["explained_variance"].estimate
    plain = cell(summary(once).blocks[0], "meta_sae", (128,), "explained_variance").estimate
    assert estimate is not None
    assert plain is not None
    assert (estimate.n, meta_sae.case_seeds) == (3, 2)
    assert estimate.value == pytest.approx(plain.value + 0.01)
    assert estimate.half_width == pytest.approx(plain.half_width)


def test_an_unfit_sae_marks_every_line_it_is_part_of() -> None:
    rows = run.rows(archs=["relu"])
    for row in run.where(rows, label="fidelity", subject=["relu-w256-s1"]):
        row["marks"].append({"kind": "unfit", "reason": "L0 is above d/4"})  # type: ignore[index]
    block = summary(rows).blocks[0]
    unfit = {(t.label, line.title) for t in block.tables for line in t.lines if line.unfit}
    assert unfit == {
        ("fidelity", "256"), ("meta_sae", "256"), ("seed_matching", "256"), ("noise", "256"),
        ("ladder", "128 → 256"), ("ladder", "256 → 512"), ("mixing", "256"),
        ("composition", "128 → 256"), ("composition", "256 → 512"),
    }  # fmt: skip
    assert [note.subjects for note in block.notes if note.kind == "unfit"] == [("relu-w256-s1",)]


def test_a_failed_case_leaves_the_others_and_is_counted() -> None:
    rows = run.rows(archs=["relu"])
    failed = ["relu-w128-s1", "relu-w256-s1"]
    for row in run.where(rows, label="ladder", subject=failed):
        row.update(status="failed", value=None, reason="out of memory")  # type: ignore[attr-defined]
    block = summary(rows).blocks[0]
    novel = cell(block, "ladder", (128, 256), "novel_share")
    assert novel.estimate is not None
    assert (novel.estimate.kind, novel.estimate.n, novel.lost) == ("values", 2, 1)
    note = next(note for note in block.notes if note.kind == "failed")
    assert (note.reason, note.subjects) == ("ladder: out of memory", (" → ".join(failed),))


def test_a_case_that_failed_as_a_whole_fails_in_every_score() -> None:
    gone = of_sae("a", score=None, status="failed", value=None, reason="no such file")  # type: ignore[arg-type]
    block = summary([gone, of_sae("b")]).blocks[0]
    assert {line.title: line.cells["l0"].status for line in table(block, "fidelity").lines[:1]} == {
        "a": "failed"
    }


def test_saes_without_axes_stand_by_their_names() -> None:
    tables = summary([of_sae("first", stderr=0.01, n=9, unit="document"), of_sae("second")])
    (block,) = tables.blocks
    (only,) = block.tables
    assert [line.title for line in only.lines] == ["first", "second"]
    first = only.lines[0].cells["explained_variance"].estimate
    assert first is not None
    assert first.conditional


def test_two_releases_of_one_size_are_not_taken_for_seeds() -> None:
    rows = [of_sae(name, members=[{"width": 768}]) for name in ("old-768", "new-768")]
    lines = summary(rows).blocks[0].tables[0].lines
    assert [line.title for line in lines] == ["new-768", "old-768"]


def test_sizes_are_in_order_of_value_whatever_the_order_of_the_rows() -> None:
    rows = run.rows(archs=["relu"], widths=[1024, 64, 512])
    assert [line.title for line in table(summary(rows).blocks[0], "fidelity").lines] == [
        "64", "512", "1024",
    ]  # fmt: skip


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_changes_no_number(random: Random) -> None:
    rows = run.rows(archs=["relu"])
    shuffled = random.sample(rows, len(rows))
    first, second = (
        {
            (table.label, line.key): line.cells
            for table in tables.blocks[0].tables
            for line in table.lines
        }
        for tables in (summary(rows), summary(shuffled))
    )
    assert first == second


def test_an_undeclared_metric_is_shown_with_what_its_rows_say() -> None:
    (block,) = summarise([of_sae("a", metric="mine", label="mine")], []).blocks
    assert [column.name for column in block.tables[0].headlines] == ["explained_variance"]


def declared(name: str, *scores: Score) -> Metric:
    return Metric(name, "sae", 1, scores, dict, (), frozenset(), {}, "")


def test_first_come_the_columns_marked_as_headlines_without_those_beside_them() -> None:
    marked = declared(
        "mine",
        Score("a", null="b", headline=True),
        Score("b", headline=True),  # stands beside `a`
        Score("c"),
        Score("d", headline=True),
    )
    rows = [of_sae("it", metric="mine", label="mine", score=name) for name in "dcba"]
    (table,) = summarise(rows, [marked]).blocks[0].tables
    assert [column.name for column in table.headlines] == ["a", "d"]
    assert [column.name for column in table.full] == ["a", "c", "d"]
    assert table.lines[0].cells["a"].null is not None


def test_without_a_mark_the_first_four_columns_come_first() -> None:
    plain = declared("mine", Score("a", null="b"), *map(Score, "bcdefg"))
    rows = [of_sae("it", metric="mine", label="mine", score=name) for name in "abcdefg"]
    (table,) = summarise(rows, [plain]).blocks[0].tables
    assert [column.name for column in table.headlines] == ["a", "c", "d", "e"]


def test_tables_stand_in_the_order_in_which_metrics_are_declared() -> None:
    rows = [of_sae("it", metric=name, label=name) for name in ("unknown", "one", "other")]
    score = Score("explained_variance")
    for names in (["one", "other"], ["other", "one"]):
        (block,) = summarise(rows, [declared(name, score) for name in names]).blocks
        assert [table.metric for table in block.tables] == [*names, "unknown"]


def test_more_axes_make_more_blocks() -> None:
    rows = [
        of_sae(f"k{k}-{w}", members=[{"arch": "topk", "k": k, "width": w, "seed": 0}])
        for k in (4, 8)
        for w in (128, 256)
    ]
    assert [block.title for block in summary(rows).blocks] == ["topk, k 4", "topk, k 8"]


def test_saes_without_data_stand_apart_and_say_so() -> None:
    rows = [
        Row(label="fidelity", metric="fidelity", score="mse", subject=(name,), status="measured",
            value=1.0, data=data, members=({"width": 8},))
        for name, data in (("a", "owt"), ("b", None))
    ]  # fmt: skip
    assert [block.title for block in summarise(rows, []).blocks] == ["data owt", "no data"]
