"""The rule of METRICS.md section 6, on numbers whose verdict is known."""

from __future__ import annotations

from typing import Any

import made_up_run as run
import pandas as pd
import pytest
from stated_margins import answers_on

from saebench_canon.plugin.question import Answer
from saebench_canon.tables.summarise import summarise


def judged(
    shared: float = 0.6,
    stderr: float | None = 0.01,
    *,
    null: float | None = 0.01,
    seeds: int = 3,
    mark: str | None = None,
    **margins: float,
) -> Answer:
    members = [{"arch": "relu", "width": 128, "seed": seed} for seed in range(seeds)]
    scores = {"shared_share": shared} | ({} if null is None else {"null_shared": null})
    more: dict[str, Any] = {"stderr": stderr, "n": seeds, "unit": "training seed"}
    if mark:
        more["marks"] = [{"kind": mark, "reason": "told so"}]
    rows = run.case("m", "seed_matching", "group", "group:seed", members, scores, **more)
    (block,) = summarise(rows, run.declared(), tables=run.tables).blocks
    return next(v for v in answers_on(block, **margins) if v.question == "unique?")


def test_below_nine_tenths_is_not_unique() -> None:
    assert judged(0.6).answer == "graded"
    assert judged(0.6).sentence == (
        "Not unique: .60 [.56, .64] of the latents come back with another seed "
        "(unique from .90; random rows .01, limit .10)."
    )


def test_wholly_above_nine_tenths_is_unique() -> None:
    answer = judged(0.97)
    assert answer.answer == "same"
    assert answer.sentence.startswith("The same latents with every seed: .97 [.93, 1.01]")


def test_an_interval_over_the_margin_decides_nothing() -> None:
    answer = judged(0.88)
    assert answer.answer == "graded"
    assert answer.sentence.startswith("undecided: shared_share in [.84, .92]")


def test_a_margin_that_is_touched_counts_as_reached() -> None:
    assert judged(0.9, 0.0).answer == "same"


def test_numbers_that_round_to_the_margin_are_printed_until_they_differ() -> None:
    below = judged(0.898, 0.0004)
    assert below.answer == "graded"
    assert below.sentence == (
        "Not unique: .8980 [.8963, .8997] of the latents come back with another seed "
        "(unique from .9000; random rows .01, limit .10)."
    )
    undecided = judged(0.9, 0.0002)
    assert undecided.sentence.startswith("undecided: shared_share in [.899, .901] (unique")
    assert "[.90, .90] of" in judged(0.9, 0.0).sentence
    chance = judged(0.6, null=0.1004)
    assert chance.sentence == (
        "not measurable here: .1004 of random rows come back too (limit .1000)."
    )
    near = judged(0.6, null=0.0999)
    assert near.sentence.startswith("Not unique: ")
    assert "random rows .0999, limit .1000" in near.sentence


def test_random_rows_that_match_make_it_not_measurable_before_anything_else() -> None:
    answer = judged(0.6, null=0.3)
    assert answer.answer == "not-measurable"
    assert answer.sentence == "not measurable here: .30 of random rows come back too (limit .10)."


def test_two_seeds_give_the_number_and_what_is_missing() -> None:
    answer = judged(0.6, None, seeds=2)
    assert answer.answer == "not-judged"
    assert answer.sentence == (
        "not judged: .60 of the latents come back with another seed; random rows .01; "
        "2 seeds of the 3 it takes."
    )


def test_three_seeds_without_an_error_are_not_judged() -> None:
    assert judged(0.6, None).sentence.endswith("no interval.")


def test_without_its_null_nothing_is_judged() -> None:
    assert "null_shared, is missing" in judged(0.6, null=None).sentence


def test_margins_are_settings_and_printed() -> None:
    answer = judged(0.6, unique=0.5)
    assert answer.answer == "same"
    assert "unique from .50" in answer.sentence


def test_a_group_marked_unfit_is_not_judged_and_says_why() -> None:
    assert judged(mark="unfit").answer == "not-judged"
    assert "told so" in judged(mark="unfit").sentence


def test_a_caveat_stands_beside_and_changes_nothing() -> None:
    answer = judged(mark="caveat")
    assert answer.sentence == judged().sentence
    assert "told so" in answer.notes[0]


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
    unique = answers_on(block)[-1]
    assert unique.sentence == "not judged: seed_matching was not measured."


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
    assert marked == {("complete?", "256 → 512"), ("atomic?", "512"), ("unique?", "512")}


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
    assert {answer.question for answer in answers} == {"complete?", "atomic?", "unique?"}
    for answer in answers:
        assert "fitness unknown: fidelity was not measured" in answer.notes
    rows_left = [r for r in rows if r["label"] != "fidelity" or r["members"][0]["width"] != 512]
    (block,) = summarise(rows_left, run.declared(), tables=run.tables).blocks
    lost = {
        (v.question, v.position) for v in answers_on(block) if "fitness unknown" in str(v.notes)
    }
    assert lost == {("complete?", "256 → 512"), ("atomic?", "512"), ("unique?", "512")}


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
