"""The SAEs of a block as the rules see them, read from the cases of a made-up run."""

from __future__ import annotations

import math
from typing import Any

import made_up_run as run
import pandas as pd
import pytest

from saebench_canon.questions.kinship import Kin, kin_of, less_error
from saebench_canon.tables.summarise import summarise


def rows(**some: Any) -> list[dict[str, Any]]:
    return run.rows(archs=["relu"], **some)


def kin(found: list[dict[str, Any]], tables: Any = run.tables) -> Kin:
    (block,) = summarise(found, run.declared(), tables=tables).blocks
    read = kin_of(block)
    assert read is not None
    return read


def test_sizes_and_starts_are_in_order_smaller_first() -> None:
    found = kin(list(reversed(rows(widths=[128, 256], seeds=[0, 1]))))
    assert list(found.sizes) == [128, 256]
    assert set(found.of(128)) == {"relu-w128-s0", "relu-w128-s1"}
    assert found.neighbours(128) == (None, 256)
    assert found.neighbours(256) == (128, None)


def test_witnesses_are_of_the_next_larger_size_or_other_starts() -> None:
    found = kin(rows(seeds=[0, 1]))
    assert found.witnesses("relu-w128-s0", 128) == ["relu-w256-s0", "relu-w256-s1"]
    assert found.witnesses("relu-w512-s0", 512) == ["relu-w512-s1"]


def test_each_direction_of_a_pair_is_that_of_its_table() -> None:
    found = kin(rows(widths=[128, 256]))
    small, large = "relu-w128-s0", "relu-w256-s0"
    for of, inside in ((large, small), (small, large)):
        expected = run.in_other(run.member_of(of), run.member_of(inside))
        assert found.raw.family.relations[of, inside].cosine.tolist() == expected.cosine.tolist()
    assert found.raw.family.found(large, small).mean() == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("setting", "value", "share"), [("threshold", 0.2, 0.0), ("residual", 0.95, 0.0)]
)
def test_latents_are_judged_by_the_settings_that_they_were_compared_with(
    setting: str, value: float, share: float
) -> None:
    found = rows(widths=[128, 256])
    plain = kin(found).raw.family.missing("relu-w256-s0", "relu-w128-s0").mean()
    assert plain == pytest.approx(0.3)
    for row in run.where(found, metric="comparison"):
        row["settings"][setting] = value
    assert kin(found).raw.family.missing("relu-w256-s0", "relu-w128-s0").mean() == share


def test_the_gain_of_a_sum_is_a_setting_too() -> None:
    found = run.rows(archs=["topk"], widths=[128, 256])
    pair, peers = ("topk-w256-s0", "topk-w128-s0"), ["topk-w256-s1"]
    assert kin(found).raw.family.sums(*pair, peers).any()
    for row in run.where(found, metric="comparison"):
        row["settings"]["gain"] = 0.9
    assert not kin(found).raw.family.sums(*pair, peers).any()


def test_rows_are_centred_only_with_an_sae_that_shares_a_direction() -> None:
    found = rows(widths=[128, 256])
    assert kin(found).views(["relu-w128-s0"]) != []
    for row in run.where(found, score="mean_row_norm_large"):
        if row["subject"][1] == "relu-w256-s0":
            row["value"] = 0.5  # type: ignore[index]
    read = kin(found)
    assert read.shared == {"relu-w256-s0"}
    assert read.views(["relu-w128-s0", "relu-w256-s0"]) == [read.raw, read.centred]
    assert read.views(["relu-w128-s0", "relu-w256-s1"]) == [read.raw]


def test_a_gain_has_its_own_centred_value_or_the_raw_one() -> None:
    found = rows(widths=[128, 256])
    pair = ("relu-w128-s0", "relu-w256-s0")
    raw = kin(found)
    assert raw.centred.gains[pair] == raw.raw.gains[pair]
    found += run.case(
        "insertion", "insertion", "pair", "steps",
        [run.member_of(name) for name in pair], {"stable_gain_centred": 0.4},
        id=f"insertion {'|'.join(pair)}", settings={},
    )  # fmt: skip

    def tables(case_id: str, name: str) -> pd.DataFrame | None:
        table = run.tables(case_id, name)
        if name == "documents" and table is not None:
            return table.assign(removed_centred=0.4)
        return table

    both = kin(found, tables)
    assert both.centred.gains[pair] == 0.4
    assert both.raw.gains[pair] == raw.raw.gains[pair]
    assert both.centred.documents[pair][2].tolist() == [0.4] * 10


def test_errors_are_compared_at_their_best_scale() -> None:
    found = kin(rows(widths=[128, 256]))
    assert less_error(found, found.of(128), found.of(256)) == pytest.approx(0.06 / 0.5)
    without = [row for row in rows(widths=[128, 256]) if row["metric"] != "insertion"]
    lost = kin(without)
    assert math.isnan(less_error(lost, lost.of(128), lost.of(256)))


def test_without_compared_pairs_there_are_no_kin() -> None:
    found = [row for row in rows() if row["metric"] != "comparison"]
    (block,) = summarise(found, run.declared(), tables=run.tables).blocks
    assert kin_of(block) is None
