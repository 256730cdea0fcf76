"""The card of a latent is what its reader is meant to see, to the letter."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from clone import GOLDEN

from saebench_canon.latents.card import Card, Related, Section, markdown, text
from saebench_canon.latents.chance import chance, sums
from saebench_canon.latents.evidence import Firing
from saebench_canon.latents.token_text import columns
from saebench_canon.plugin.evidence import Context, Evidence, Part, Promoted, Token

LONG = "and so it went on for longer than any line can be, of which the end is never seen by them "


def scores(**values: float | None) -> dict[str, dict[str, Any]]:
    return {name: {"value": value, "stderr": None} for name, value in values.items()}


META = scores(
    explained_variance=0.66, null_covariance=0.61, heldout_explained_variance=0.16,
    heldout_null=0.03, composed_share=0.31, composed_null=0.08, composed_excess=0.25,
)  # fmt: skip


def card() -> Card:
    """Einstein, as the paper tells it, with tokens that are hard to show."""
    evidence = Evidence(
        "gpt2-w49152",
        11329,
        tokens=(
            Token(" Einstein", 0.81, 1e-5), Token("\n", 0.05, 0.04), Token("'s", 0.03, 0.01),
            Token(" ", 0.02, 0.01), Token("<E2 98>", 0.01, 1e-5), Token("愛因", 0.01, 1e-5),
        ),
        contexts=(
            Context(LONG * 2, " Einstein", " was the first " + LONG, 31.25, "a"),
            Context("", "Einstein", "\n\tin Bern\n", 9.5, "b"),
            Context("アルベルト" * 12, "愛因", "斯坦" * 30, 9.25, "c"),
            Context("the end", "\n", "", 4.0, "d"),
            Context("a quoted 'é", "  ", "'x\x07", 0.25, "e"),
        ),
        promoted=(Promoted(" relativity", 6.12), Promoted("stein", 5.04), Promoted('"', -0.04)),
    )  # fmt: skip
    sections = (
        Section(
            "meta_latents", "made of meta-latents (meta_sae: 2304 meta-latents), "
            "which explain .72 of its row",
            (
                Related(228, 0.31, "science · physics"),
                Related(34, 0.3, "prominent figures, " + LONG),
                Related(711, 0.19, None),
            ),
            explained=0.72, sentences=chance(META),
        ),
        Section("nearest", "nearest latents of gpt2-w24576", (Related(17, 0.913, "Einstein"),)),
        Section(
            "sum", "as a sum of latents of gpt2-w24576 (beside each, what it and those above "
            "explain)",
            (Related(17, 0.7, "Einstein", 0.55), Related(2204, 0.1, "German", 0.607)),
            explained=0.607, sentences=sums(META, "the larger's latents", "the smaller's"),
        ),
    )  # fmt: skip
    firing = Firing(tokens=173, all_tokens=1_041_203, documents=1, mean=2.1234, largest=31.25)
    notes = ("Of 8 SAEs gpt2-w49152 was taken; " + LONG,)
    return Card("gpt2-ladder", "Einstein", evidence, firing, "open.jsonl", sections, notes)


def meta_card() -> Card:
    """A meta-latent that nothing but its latents is known of."""
    evidence = Evidence("gpt2-w49152", 34, "meta-latent", parts=(Part(11329, 0.3, "Einstein"),))
    nothing = scores(explained_variance=0.5, null_covariance=0.52)
    only = (Related(11329, 0.3, None, 0.72),)
    section = Section("latents", "used by 3 of 49,152 latents", only, 2, sentences=chance(nothing))
    return Card("gpt2-ladder", None, evidence, sections=(section,))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("card.txt", lambda: text(card())),
        ("card.md", lambda: markdown(card())),
        ("meta-card.txt", lambda: text(meta_card())),
    ],
)
def test_the_card_is_the_golden_one(name: str, shown: Any) -> None:
    assert shown() == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    wide = replace(card(), notes=("日本" * 60,), label="語" * 120)
    wide = replace(wide, evidence=replace(wide.evidence, tokens=(Token("語 語", 0.1, 0.1),) * 9))
    for shown in (card(), meta_card(), wide):
        assert max(map(columns, text(shown, width=width).splitlines())) <= width


def test_the_tokens_of_contexts_stand_below_each_other() -> None:
    lines = [line for line in text(card()).splitlines() if "«" in line]
    assert len(lines) == 5
    assert len({columns(line.partition("«")[0]) for line in lines}) == 1


def test_json_has_all_that_text_has_and_null_for_what_is_left_out() -> None:
    printed = json.loads(json.dumps(card().to_dict()))
    assert (printed["sae"], printed["kind"], printed["number"]) == ("gpt2-w49152", "latent", 11329)
    assert printed["label"] == "Einstein"
    assert printed["contexts"][0]["code"] == 31.25
    assert printed["meta_latents"]["explained"] == 0.72
    assert printed["sum"]["items"][1] == {
        "number": 2204, "weight": 0.1, "label": "German", "explained": 0.607,
    }  # fmt: skip
    assert printed["latents"] is None
    assert meta_card().to_dict()["meta_latents"] is None
    assert meta_card().to_dict()["parts"][0]["label"] == "Einstein"


def test_what_is_more_than_chance_is_said_with_its_null() -> None:
    assert chance(META) == (
        "Meta-latents explain .66 of the rows they were trained on (.61 of random rows with the "
        "same covariance) and .16 of rows kept out (.03).",
        ".31 of rows kept out are sums of meta-latents (.08 by chance, excess .25).",
    )


def test_what_is_no_more_than_chance_is_called_so() -> None:
    none = META | scores(heldout_explained_variance=-0.09, heldout_null=-0.05)
    assert chance(none)[0].startswith("No more than chance: meta-latents explain .66 of")
    assert "-.09 of rows kept out (-.05)" in chance(none)[0]
    none = META | scores(composed_share=0.05, composed_null=0.06, composed_excess=-0.01)
    assert chance(none)[1] == (
        "No sign of composition: .05 of rows kept out are sums of meta-latents (.06 by chance, "
        "excess -.01)."
    )


def test_sums_that_another_seed_gives_too_are_no_sign_of_composition() -> None:
    sentences = {floor: sums(META, "these", "those", floor)[0] for floor in (None, 0.09, 0.31)}
    assert sentences[None] == ".31 of these are sums of those (.08 by chance, excess .25)."
    assert sentences[0.09].endswith("(.08 by chance, excess .25; .09 of another seed's).")
    assert sentences[0.09].startswith(".31")
    assert sentences[0.31].startswith("No sign of composition: .31")


def test_a_difference_within_two_standard_errors_is_no_more_than_chance() -> None:
    noisy = META | {"heldout_explained_variance": {"value": 0.16, "stderr": 0.06}}
    assert chance(noisy)[0].startswith("Meta-latents explain")
    noisy["heldout_null"] = {"value": 0.03, "stderr": 0.03}
    assert chance(noisy)[0].startswith("No more than chance")


@pytest.mark.parametrize(
    ("held", "null", "stderr", "none"),
    [
        (-0.02, -0.30, None, True),  # worse than the mean row, however far above its null
        (-0.02, -0.30, 0.01, True),
        (0.07, 0.03, None, True),
        (0.09, 0.03, None, False),
        (0.07, 0.03, 0.01, False),
    ],
)
def test_a_negative_or_a_small_surplus_is_no_more_than_chance(
    held: float, null: float, stderr: float | None, none: bool
) -> None:
    with_heldout = META | scores(heldout_null=null)
    with_heldout["heldout_explained_variance"] = {"value": held, "stderr": stderr}
    assert chance(with_heldout)[0].startswith("No more than chance") is none


def test_scores_that_were_not_measured_are_not_spoken_of() -> None:
    assert chance({}) == ()
    assert chance(scores(explained_variance=None, null_covariance=0.5)) == ()
    only = scores(explained_variance=0.5, null_covariance=0.4, heldout_explained_variance=None)
    assert chance(only) == (
        "Meta-latents explain .50 of the rows they were trained on (.40 of random rows with the "
        "same covariance).",
    )


def test_a_card_without_a_label_or_evidence_still_reads() -> None:
    bare = replace(meta_card(), sections=())
    assert text(bare).splitlines()[2] == "–"
