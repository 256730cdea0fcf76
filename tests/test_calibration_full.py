"""The arithmetic behind the error rates of docs/calibration.md, on tables whose answer is known."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from calibration_full import SETTINGS, merging, page, rates, suite_text, true_value, upper
from scipy.stats import binom

from saebench_canon.plugin.registry import load_registry
from saebench_canon.suite.load import parse_suite
from saebench_canon.suite.toml_merge import apply_settings
from saebench_canon.suite.toml_table import read_toml


@pytest.mark.parametrize(("count", "of"), [(0, 20), (3, 40), (20, 20)])
def test_the_bound_is_where_so_few_would_be_rare(count: int, of: int) -> None:
    bound = upper(count, of)
    if count == of:
        assert bound == 1
    else:
        assert binom.cdf(count, of, bound) == pytest.approx(0.025)


def row(answer: str, truth: float, **more: Any) -> dict[str, Any]:
    return {
        "setting": "a", "replicate": more.pop("replicate", 0), "question": "complete?",
        "smaller": 64, "size": 96, "answer": answer, "truth": truth, "seen": math.nan,
        "merged": math.nan, "merged_truth": math.nan, "chance": math.nan, **more,
    }  # fmt: skip


def test_a_no_is_false_up_to_half_the_margin_and_none_found_above_it() -> None:
    table = pd.DataFrame([
        row("no", 0.02), row("none-found", 0.02), row("no", 0.04), row("no", 0.3),
        row("none-found", 0.06), row("undecided", 0.3), row("not-judged", 0.0),
    ])  # fmt: skip
    text = rates(table)
    assert "| a | .11 | 1 of 3 | 1 of 3 | 1 of 3 | 1 of 3 | 1 | 1 |" in text
    assert 'False "no": 1 of 3 (at most .91).' in text
    assert 'False "none found": 1 of 3 (at most .91).' in text


def test_none_found_is_false_only_for_sums_that_can_be_seen() -> None:
    atomic = {"question": "atomic?", "smaller": math.nan}
    table = pd.DataFrame([
        row("none-found", 0.5, seen=0.0, **atomic),
        row("none-found", 0.5, seen=0.4, replicate=1, **atomic),
        row("none-found", 0.01, seen=0.0, replicate=2, size=64, **atomic),
        row("no", 0.5, seen=0.4, replicate=2, **atomic),
    ])  # fmt: skip
    assert "| a | .50 | – | – | 1 of 3 | 1 of 2 | 0 | 0 |" in rates(table)


def test_merging_is_told_beside_the_truth() -> None:
    atomic = {"question": "atomic?", "smaller": math.nan, "size": 64}
    table = pd.DataFrame([
        row("no", 0.5, merged=0.3, merged_truth=0.2, chance=0.02, **atomic),
        row("no", 0.5, merged=0.2, merged_truth=0.3, chance=0.04, **atomic),
    ])  # fmt: skip
    assert "| a | 64 | .25 | .03 | .25 | .10 |" in merging(table)
    assert "1 settings, 1 replicates each" in page(table)


def test_what_is_true_weighs_features_by_who_finds_them() -> None:
    def features(*cosines: float) -> pd.DataFrame:
        return pd.DataFrame({"feature": [0, 1, 2, 3], "cosine_centred": cosines})

    table = {
        "l0": features(0.95, 0.95, 0.95, 0.1), "l1": features(0.95, 0.95, 0.1, 0.1),
        "s0": features(0.95, 0.1, 0.1, 0.95), "s1": features(0.95, 0.8, 0.1, 0.95),
    }  # fmt: skip
    latents = {name: pd.DataFrame({"sum_of": [[], [0, 3], [1, 2]]}) for name in table}
    complete = true_value("complete?", ["s0", "s1"], ["l0", "l1"], table, latents)
    assert complete["truth"] == pytest.approx((0 + 0.5 + 0.5) / 2.5)
    atomic = true_value("atomic?", ["s0", "s1"], ["l0"], table, latents)
    assert atomic == {"truth": pytest.approx(2 / 3), "seen": pytest.approx(1 / 3)}
    assert true_value("unique?", [], ["l0", "l1"], table, latents)["truth"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_a_suite(name: str, tmp_path: Any) -> None:
    path = tmp_path / "s.toml"
    path.write_text(suite_text(name, SETTINGS[name], 2))
    suite = parse_suite(
        apply_settings(read_toml(path), []), load_registry(installed=False), file="s"
    )
    assert len(suite.saes) == 2 * 2 * SETTINGS[name].seeds
    assert {spec.metric for spec in suite.metrics} >= {"truth", "comparison", "insertion"}
