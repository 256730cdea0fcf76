"""Answers on a made-up run whose truth is known."""

from __future__ import annotations

from typing import Any

import made_up_run as run
import pandas as pd
import pytest
from stated_margins import answers_on

from saebench_canon.plugin.question import Answer
from saebench_canon.tables.summarise import summarise

RELATED = ("comparison", "insertion")


@pytest.mark.parametrize("question", ["complete?", "atomic?"])
def test_what_was_not_compared_is_not_judged(question: str) -> None:
    lost = (*RELATED, "meta_sae")
    rows = [row for row in run.rows(archs=["relu"]) if row["metric"] not in lost]
    (block,) = summarise(rows, run.declared(), tables=run.tables).blocks
    answers = [answer for answer in answers_on(block) if answer.question == question]
    assert [answer.answer for answer in answers] == ["not-judged"]
    assert answers[0].sentence.startswith("not judged: ")


def test_completeness_states_shares_floors_and_the_gain() -> None:
    (block,) = summarise(run.rows(archs=["relu"]), run.declared(), tables=run.tables).blocks
    first = answers_on(block)[0]
    assert first.answer == "no"
    assert first.sentence.startswith(
        "Not complete: of what other seeds of the larger find, .30 [.2"
    )
    assert "adding it removes .20 of the error" in first.sentence
    assert set(first.numbers) == {
        "missing_stable_share", "missing_stable_floor", "missing_stable_above_floor",
        "not_found_stable_share", "found_again_share", "stable_gain", "stable_gain_above_floor",
        "less_error",
    }  # fmt: skip


def test_one_seed_a_size_is_judged_by_the_next_larger_as_a_witness() -> None:
    rows = run.rows(archs=["relu"], seeds=[0])
    for row in run.where(rows, metric="insertion"):
        assert len(row["subject"]) == 2
    (block,) = summarise(rows, run.declared(), tables=run.tables).blocks
    first, second, *_ = answers_on(block)
    assert first.answer == "undecided"
    assert "that relu-w512-s0 finds too" in first.sentence
    assert "what adding them is worth was not measured" in first.sentence
    assert second.answer == "not-judged"
    assert second.sentence.endswith("another seed of the larger or a wider SAE would tell.")
    unique = next(answer for answer in answers_on(block) if answer.question == "unique?")
    assert unique.sentence == "not judged: one seed: another one would tell."


def test_a_pair_that_was_not_compared_is_named() -> None:
    rows = [
        row
        for row in run.rows(archs=["relu"])
        if row["metric"] != "comparison" or row["subject"] != ["relu-w256-s0", "relu-w256-s1"]
    ]
    (block,) = summarise(rows, run.declared(), tables=run.tables).blocks
    first = answers_on(block)[0]
    assert first.sentence == "not judged: relu-w256-s0 and relu-w256-s1 were not compared."


def test_a_gain_without_its_floor_is_no_gain() -> None:
    rows = [
        row
        for row in run.rows(archs=["relu"], widths=[128, 256])
        if row["metric"] != "insertion" or row["subject"] != ["relu-w256-s0", "relu-w256-s1"]
    ]
    (block,) = summarise(rows, run.declared(), tables=run.tables).blocks
    first = answers_on(block)[0]
    assert first.answer in ("no", "undecided")
    assert "nan" not in first.sentence
    without = [row for row in rows if row["metric"] != "insertion"]
    (block,) = summarise(without, run.declared(), tables=run.tables).blocks
    first = answers_on(block)[0]
    assert first.answer == "undecided"
    assert "what adding it is worth was not measured" in first.sentence
    assert "nan" not in first.sentence


def test_twins_count_as_one_and_are_named() -> None:
    rows = run.rows(archs=["relu"], widths=[128, 256])

    def tables(case_id: str, name: str) -> pd.DataFrame | None:
        table = run.tables(case_id, name)
        if name == "start" and table is not None and case_id.count("w256") == 2:
            return table.assign(same_index=25)
        return table

    (block,) = summarise(rows, run.declared(), tables=tables).blocks
    first = answers_on(block)[0]
    assert first.answer == "not-judged"
    assert "relu-w256-s0, relu-w256-s1, relu-w256-s2 began from the same rows and count as one" in (
        first.notes
    )


def test_rows_that_share_a_direction_are_judged_centred() -> None:
    rows = run.rows(archs=["relu"], widths=[128, 256])
    for row in run.where(rows, score="mean_row_norm_large"):
        row["value"] = 0.5  # type: ignore[index]

    def tables(case_id: str, name: str) -> pd.DataFrame | None:
        table = run.tables(case_id, name)
        if table is not None and "cosine" in table and case_id.count("w256") == 1:
            return table.assign(cosine_centred=0.95, first_centred=0.9, explained_centred=0.9)
        return table

    (block,) = summarise(rows, run.declared(), tables=tables).blocks
    first = answers_on(block)[0]
    assert first.answer != "no"
    assert "rows share a direction; they are compared without it" in first.notes
    share = first.numbers["missing_stable_share"].estimate
    assert share is not None
    assert share.value == 0


def test_an_unfit_member_withholds_every_verdict_it_touches() -> None:
    rows = run.rows(archs=["relu"])
    for row in run.where(rows, label="fidelity", subject=["relu-w512-s0"]):
        row["marks"].append({"kind": "unfit", "reason": "L0 is above d/4"})  # type: ignore[index]
    (block,) = summarise(rows, run.declared(), tables=run.tables).blocks
    marked = {
        (v.question, v.position) for v in answers_on(block) if "L0 is above d/4" in v.sentence
    }
    assert marked == {("complete?", "256 → 512"), ("atomic?", "512"), ("unique?", "512"),
                      ("canonical?", "512")}  # fmt: skip


def test_training_and_dead_share_stand_beside_uniqueness() -> None:
    (block,) = summarise(run.rows(archs=["relu"]), run.declared(), tables=run.tables).blocks
    notes = next(v.notes for v in answers_on(block) if v.question == "unique?")
    assert notes == ("dead share .01", "trained on 2 M tokens")


def test_without_fidelity_every_sentence_has_unknown_fitness_beside_it() -> None:
    rows = run.rows(archs=["relu"])
    (block,) = summarise(rows, run.declared(), tables=run.tables).blocks
    assert not any("fitness unknown" in note for v in answers_on(block) for note in v.notes)
    (block,) = summarise(
        [r for r in rows if r["label"] != "fidelity"], run.declared(), tables=run.tables
    ).blocks
    answers = answers_on(block)
    assert {answer.question for answer in answers} == {
        "complete?",
        "atomic?",
        "unique?",
        "canonical?",
    }
    for answer in answers:
        assert "fitness unknown: fidelity was not measured" in answer.notes
    rows_left = [r for r in rows if r["label"] != "fidelity" or r["members"][0]["width"] != 512]
    (block,) = summarise(rows_left, run.declared(), tables=run.tables).blocks
    lost = {
        (v.question, v.position) for v in answers_on(block) if "fitness unknown" in str(v.notes)
    }
    assert lost == {("complete?", "256 → 512"), ("atomic?", "512"), ("unique?", "512"),
                      ("canonical?", "512")}  # fmt: skip


def atomicity(rows: list[dict[str, Any]]) -> dict[str, Answer]:
    """What is said of atomicity in a run of one architecture, by dictionary size."""
    (block,) = summarise(rows, run.declared(), tables=run.tables).blocks
    return {answer.position: answer for answer in answers_on(block) if answer.question == "atomic?"}


def test_each_size_is_judged_by_its_meta_sae_and_by_the_next_smaller_sae() -> None:
    by_size = atomicity([row for row in run.rows() if row["axes"]["arch"] == "topk"])
    assert {size: answer.answer for size, answer in by_size.items()} == {
        "128": "undecided", "256": "no", "512": "no",
    }  # fmt: skip
    assert "no smaller SAE was compared" in by_size["128"].sentence
    for small, large in ((128, 256), (256, 512)):
        sentence = by_size[str(large)].sentence
        assert f"of the latents are sums of {small} smaller ones, and .0" in sentence
    assert "of its own latents are sums of 256 larger ones" in by_size["128"].sentence


def test_latents_are_judged_by_a_smaller_sae_where_no_meta_sae_was_trained() -> None:
    rows = run.rows(archs=["relu"])
    by_size = atomicity([row for row in rows if row["metric"] != "meta_sae"])
    assert {size: answer.answer for size, answer in by_size.items()} == {
        "128": "not-judged", "256": "none-found", "512": "none-found",
    }  # fmt: skip
    only = atomicity([row for row in rows if row["metric"] not in RELATED])
    assert list(only) == ["128", "256", "512"]
    assert all("no smaller SAE was compared" in answer.sentence for answer in only.values())


def test_margins_of_atomicity_are_settings() -> None:
    (block,) = summarise(run.rows(archs=["relu"]), run.declared(), tables=run.tables).blocks
    answers = answers_on(block, recall=0.95)
    (of_256,) = (
        answer for answer in answers if answer.question == "atomic?" and answer.position == "256"
    )
    assert of_256.answer == "undecided"
    assert "only .93 of planted sums are found (limit .95)" in of_256.sentence
