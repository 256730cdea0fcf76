"""unique?, on SAEs whose latents are known to be found again or not."""

from __future__ import annotations

from typing import Any

import made_up_run as run
import numpy as np
import pandas as pd
import pytest
from stated_margins import answers_on

from saebench_canon.plugin.question import Answer
from saebench_canon.tables.summarise import summarise

LATENTS = 200


def judged(
    found: float = 0.6,
    *,
    null: float | None = 0.01,
    seeds: int = 3,
    mark: str | None = None,
    more: dict[str, float] | None = None,
    **margins: float,
) -> Answer:
    """The answer on seeds that share this part of their latents: the first ones of each."""
    members = [{"arch": "relu", "width": 128, "seed": seed} for seed in range(seeds)]
    extra: dict[str, Any] = {"stderr": 0.01, "n": seeds, "unit": "training seed"}
    if mark:
        extra["marks"] = [{"kind": mark, "reason": "told so"}]
    scores = {"found_by_one": 0.1, **(more or {})}
    if null is not None:
        scores |= {"found_by_two": 0.5, "found_by_two_null": null, "found_by_one_null": 0.0}
    rows = run.case("m", "seed_matching", "group", "group:seed", members, scores, **extra)
    fidelity = {"explained_variance": 0.8}
    for member in members:
        rows += run.case("fidelity", "fidelity", "sae", "each", [member], fidelity, marks=[
            {"kind": mark, "reason": "told so"}] if mark else [])  # fmt: skip
    rows += run.family(members)

    def tables(case_id: str, name: str) -> pd.DataFrame | None:
        table = run.tables(case_id, name)
        if table is None or "cosine" not in table:
            return table
        cosine = np.where(np.arange(LATENTS) < round(found * LATENTS), 0.95, 0.3)
        return pd.DataFrame({
            "latent": range(LATENTS),
            **{f"{column}{end}": value for end in ("", "_centred") for column, value in {
                "cosine": cosine, "first": cosine**2, "explained": cosine**2,
                "gated": np.zeros(LATENTS, bool), "atoms": [[0]] * LATENTS,
            }.items()},
        })  # fmt: skip

    (block,) = summarise(rows, run.declared(), tables=tables).blocks
    return next(v for v in answers_on(block, **margins) if v.question == "unique?")


def test_what_others_find_is_graded() -> None:
    answer = judged(0.6)
    assert answer.answer == "graded"
    assert answer.sentence == (
        "Another seed finds .60 [.53, .67] of the latents (the same from .90 on; random rows .01); "
        ".60 (.60, .60, .60) are found by two others, .00 (.00, .00, .00) by one, .40 (.40, .40, "
        ".40) by neither."
    )
    assert answer.short == ".60 / .00 / .40"


def test_nine_tenths_and_more_are_the_same() -> None:
    answer = judged(0.97)
    assert answer.answer == "same"
    assert answer.sentence.startswith("The same latents with every seed: another seed finds .97 [")
    assert "(the same from .90 on; random rows .01)" in answer.sentence
    assert answer.short == "same: .97"


def test_an_interval_over_the_margin_is_graded() -> None:
    """All seeds agree, so that the interval is that of 200 latents."""
    assert judged(0.905).answer == "graded"
    assert judged(0.95).answer == "same"


def test_numbers_that_round_to_the_margin_are_printed_until_they_differ() -> None:
    assert "from .90 on" in judged(0.97).sentence
    assert "[.8999" not in judged(0.97, unique=0.93).sentence
    assert judged(0.6, null=0.1004).sentence == (
        "not measurable here: another seed's random rows find .1004 of random rows (limit .1000)."
    )


def test_random_rows_that_are_found_make_it_not_measurable() -> None:
    answer = judged(0.6, null=0.3)
    assert answer.answer == "not-measurable"


def test_what_chance_finds_is_half_of_one_and_all_of_two() -> None:
    answer = judged(0.6, null=0.04, more={"found_by_one_null": 0.2})
    assert answer.answer == "graded"  # the null of found_by_one is set below
    assert "random rows .04" in answer.sentence


def test_two_seeds_give_both_values_and_what_a_third_would_tell() -> None:
    answer = judged(0.97, null=None, seeds=2)
    assert answer.answer == "graded"
    assert answer.sentence == (
        ".97 and .97 of two seeds' latents are found by the other; a third seed would tell which "
        "are found by every other."
    )
    assert answer.short == ".97 by one"


def test_one_seed_is_not_judged() -> None:
    assert judged(seeds=1).sentence.startswith("not judged: ")


def test_without_its_null_it_is_graded_and_chance_is_not_named() -> None:
    assert "random" not in judged(0.6, null=None).sentence


def test_codes_encoders_and_variance_stand_beside_the_rows() -> None:
    more = {
        "found_by_two_codes": 0.5, "found_by_one_codes": 0.2, "found_by_none_codes": 0.3,
        "shared_variance": 0.81,
    }  # fmt: skip
    sentence = judged(0.6, more=more).sentence
    assert "; where codes too must agree .50 / .20 / .30" in sentence
    assert "those found by two carry .81 of the explained variance" in sentence
    assert "encoders" not in sentence


def test_margins_are_settings_and_printed() -> None:
    answer = judged(0.6, unique=0.5)
    assert answer.answer == "same"
    assert "(the same from .50 on;" in answer.sentence


@pytest.mark.parametrize(("mark", "word"), [("unfit", "not-judged"), ("caveat", "graded")])
def test_marks_withhold_or_stand_beside(mark: str, word: str) -> None:
    answer = judged(mark=mark)
    assert answer.answer == word
    assert "told so" in (answer.sentence if mark == "unfit" else answer.notes[0])
