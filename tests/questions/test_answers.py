"""The rule of METRICS.md section 6, on numbers whose verdict is known."""

from __future__ import annotations

from typing import Any

import made_up_run as run
import pytest
from stated_margins import STATED, answers_on

from saebench_canon.plugin.question import Answer
from saebench_canon.plugin.table_line import Cell, Estimate, Line
from saebench_canon.questions.complete import complete
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
    (block,) = summarise(rows, run.declared()).blocks
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


def without_peers() -> list[dict[str, Any]]:
    return [row for row in run.rows(archs=["relu"]) if row["score"] not in run.NEEDS_PEERS]


@pytest.mark.parametrize("question", ["complete?", "atomic?"])
def test_what_has_no_deciding_score_is_not_judged(question: str) -> None:
    rows = [row for row in without_peers() if row["score"] != "composed_excess"]
    (block,) = summarise(rows, run.declared()).blocks
    answers = [answer for answer in answers_on(block) if answer.question == question]
    assert {answer.answer for answer in answers} == {"not-judged"}
    assert all(answer.sentence.startswith("not judged") for answer in answers)


def test_completeness_states_share_gain_and_floors() -> None:
    (block,) = summarise(without_peers(), run.declared()).blocks
    assert answers_on(block)[0].sentence == (
        "not judged: .37 [.36, .38] of the larger's latents are novel (floor .11); "
        "inserting them removes .08 [.08, .09] of the error (floor .03); "
        "no peers say what comes back."
    )


def test_a_harmful_insertion_adds_to_the_error() -> None:
    rows = without_peers()
    for row in run.where(rows, label="ladder", score="novel_gain"):
        row["value"] -= 1.0  # type: ignore[index]
    (block,) = summarise(rows, run.declared()).blocks
    assert "inserting them adds .92 [.91, .92] of the error" in answers_on(block)[0].sentence


def test_one_seed_is_held_against_the_random_dictionary() -> None:
    (block,) = summarise(run.rows(archs=["relu"], seeds=[0]), run.declared()).blocks
    complete, *_, unique = answers_on(block)
    assert "one seed of the 3 it takes" in complete.sentence
    assert "no floor: above the random dictionary by .4" in complete.sentence
    assert unique.sentence == "not judged: seed_matching was not measured."


def test_an_unfit_member_withholds_every_verdict_it_touches() -> None:
    rows = run.rows(archs=["relu"])
    for row in run.where(rows, label="fidelity", subject=["relu-w512-s0"]):
        row["marks"].append({"kind": "unfit", "reason": "L0 is above d/4"})  # type: ignore[index]
    (block,) = summarise(rows, run.declared()).blocks
    marked = {
        (v.question, v.position) for v in answers_on(block) if "L0 is above d/4" in v.sentence
    }
    assert marked == {("complete?", "256 → 512"), ("atomic?", "512"), ("unique?", "512")}


def test_training_and_dead_share_stand_beside_uniqueness() -> None:
    (block,) = summarise(run.rows(archs=["relu"]), run.declared()).blocks
    notes = next(v.notes for v in answers_on(block) if v.question == "unique?")
    assert notes == ("dead share .01", "trained on 2 M tokens")


def test_without_fidelity_every_sentence_has_unknown_fitness_beside_it() -> None:
    rows = run.rows(archs=["relu"])
    (block,) = summarise(rows, run.declared()).blocks
    assert not any("fitness unknown" in note for v in answers_on(block) for note in v.notes)
    (block,) = summarise([r for r in rows if r["label"] != "fidelity"], run.declared()).blocks
    answers = answers_on(block)
    assert {answer.question for answer in answers} == {"complete?", "atomic?", "unique?"}
    for answer in answers:
        assert "fitness unknown: fidelity was not measured" in answer.notes
    rows_left = [r for r in rows if r["label"] != "fidelity" or r["members"][0]["width"] != 512]
    (block,) = summarise(rows_left, run.declared()).blocks
    lost = {
        (v.question, v.position) for v in answers_on(block) if "fitness unknown" in str(v.notes)
    }
    assert lost == {("complete?", "256 → 512"), ("atomic?", "512"), ("unique?", "512")}


def atomicity(rows: list[dict[str, Any]]) -> dict[str, Answer]:
    """What is said of atomicity in a run of one architecture, by dictionary size."""
    (block,) = summarise(rows, run.declared()).blocks
    return {answer.position: answer for answer in answers_on(block) if answer.question == "atomic?"}


def test_each_size_is_judged_by_its_meta_sae_and_by_the_next_smaller_sae() -> None:
    by_size = atomicity([row for row in run.rows() if row["axes"]["arch"] == "topk"])
    assert {size: answer.answer for size, answer in by_size.items()} == {
        "128": "undecided", "256": "no", "512": "no",
    }  # fmt: skip
    assert "no smaller SAE was compared" in by_size["128"].sentence
    for small, large in ((128, 256), (256, 512)):
        sentence = by_size[str(large)].sentence
        assert (
            f"of the latents are sums of {small} smaller latents, beyond chance (floor" in sentence
        )


def test_latents_are_judged_by_a_smaller_sae_where_no_meta_sae_was_trained() -> None:
    rows = run.rows(archs=["relu"])
    alone = [row for row in rows if row["metric"] != "meta_sae"]
    by_size = atomicity(alone)
    assert list(by_size) == ["256", "512"]
    for answer in by_size.values():
        assert answer.sentence.endswith("(limits .05 and .10); no meta-SAE was trained.")
    only = atomicity([row for row in rows if row["metric"] != "composition"])
    assert list(only) == ["128", "256", "512"]
    assert all("no smaller SAE was compared" in answer.sentence for answer in only.values())
    floors = atomicity([row for row in alone if row["label"] != "composition"])
    assert {size: answer.sentence for size, answer in floors.items()} == {
        "": "not judged: neither meta_sae nor composition was measured."
    }


def test_a_smaller_sae_that_is_unfit_leaves_a_size_to_its_meta_sae() -> None:
    rows = run.rows(archs=["relu"])
    for row in run.where(rows, label="fidelity", subject=["relu-w256-s0"]):
        row["marks"].append({"kind": "unfit", "reason": "L0 is above d/4"})  # type: ignore[index]
    by_size = atomicity(rows)
    assert by_size["256"].sentence == "not judged: L0 is above d/4 (relu-w256-s0)."
    assert by_size["512"].answer == "undecided"
    assert by_size["512"].sentence.endswith("; the smaller SAE is not fit to be compared.")


def test_margins_of_atomicity_are_settings() -> None:
    (block,) = summarise(run.rows(archs=["relu"]), run.declared()).blocks
    answers = answers_on(block, recall=0.9)
    (of_256,) = (
        answer for answer in answers if answer.question == "atomic?" and answer.position == "256"
    )
    assert of_256.answer == "undecided"
    assert of_256.sentence.endswith("meta-latents are found by .80 [.79, .82] (limit .90).")


@pytest.mark.parametrize(
    ("gain", "floor", "said"),
    [
        (0.12, 0.03, "inserting them removes .12 of the error (floor .03)"),
        (-0.59, -0.64, "inserting them adds .59 of the error (floor .64)"),
        (-0.59, 0.03, "inserting them adds .59 of the error (floor: removes .03)"),
        (0.12, -0.64, "inserting them removes .12 of the error (floor: adds .64)"),
    ],
)
def test_a_gain_below_zero_is_an_error_that_comes(gain: float, floor: float, said: str) -> None:
    cells = {
        "novel_share": Cell(point(0.5), "measured"),
        "novel_gain": Cell(point(gain), "measured", floor=point(floor)),
    }
    line = Line((128, 256), "128 → 256", cells, subjects=("a", "b"), cases=("id",))
    assert said in complete(line, STATED["complete?"]).sentence


def point(value: float) -> Estimate:
    return Estimate(value, None, 1, "training seed", "point", (value,))
