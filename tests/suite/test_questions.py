"""The [question."NAME"] tables of a suite: what is asked, and by which margins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from planted import SUITE

from saebench_canon.errors import CanonError
from saebench_canon.plugin.question import Margin, Question
from saebench_canon.plugin.registry import Registry, load_registry
from saebench_canon.suite.load import load_suite
from saebench_canon.suite.questions import parse_questions


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def defaults(registry: Registry) -> dict[str, dict[str, float]]:
    return {name: question.defaults for name, question in registry.questions.items()}


def test_a_suite_asks_what_its_metrics_can_answer(suite: Path, registry: Registry) -> None:
    assert load_suite(suite, registry).questions == defaults(registry)
    head = SUITE.split("[[metric]]")[0]
    for metrics, asked in (
        (["fidelity"], []),
        (["fidelity", "stitching"], ["complete?", "canonical?"]),
        (["composition"], ["atomic?", "canonical?"]),
        (["seed_matching", "stitching"], ["complete?", "unique?", "canonical?"]),
    ):
        suite.write_text(head + "".join(f'[[metric]]\nname = "{name}"\n' for name in metrics))
        assert list(load_suite(suite, registry).questions) == asked


def test_a_table_sets_a_margin_and_leaves_the_others(suite: Path, registry: Registry) -> None:
    suite.write_text(SUITE + '[question."unique?"]\nunique = 0.95\n')
    asked = load_suite(suite, registry).questions
    assert asked["unique?"] == {**defaults(registry)["unique?"], "unique": 0.95}
    assert asked["complete?"] == defaults(registry)["complete?"]


def test_extends_and_set_change_one_margin(
    suite: Path, write_suite: Callable[[str], Path], registry: Registry
) -> None:
    suite.write_text(SUITE + '[question."unique?"]\nunique = 0.95\nnull_shared = 0.2\n')
    child = write_suite('extends = "small.toml"\n[question."unique?"]\nunique = 0.8\n')
    asked = load_suite(child, registry).questions["unique?"]
    assert (asked["unique"], asked["null_shared"]) == (0.8, 0.2)
    asked = load_suite(child, registry, settings=["question.unique?.unique=1"]).questions["unique?"]
    assert (asked["unique"], asked["null_shared"]) == (1.0, 0.2)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('[question."uniqe?"]', r"""unknown question 'uniqe\?' \(.*\[question."uniqe\?"\]\)\. """
         r"Did you mean 'unique\?'"),
        ('[question."unique?"]\nuniqe = 0.9', r"no margin 'uniqe' \(.*\)\. Did you mean 'unique'"),
        ('[question."unique?"]\nunique = "high"', r"'unique' must be a number, got 'high'"),
        ('[question."unique?"]\nunique = true', "'unique' must be a number, got True"),
        ('[question."unique?"]\nunique = nan', "'unique' must be between 0 and 1, got nan"),
        ('[question."unique?"]\nunique = 95', r"and 1, got 95\.0 \(.*\)\. It is the share"),
        ('[question."complete?"]\nlatents = 2.5', r"'latents' must be a whole number, got 2\.5"),
        ('[question."complete?"]\nlatents = 0', "'latents' must be 1 or more, got 0"),
        ('[question]\n"unique?" = 0.9', r"""0\.9 is not a table \(.*\[question."unique\?"\]\)"""),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(suite: Path, registry: Registry, table: str, sentence: str) -> None:
    suite.write_text(f"{SUITE}{table}\n")
    with pytest.raises(CanonError, match=sentence) as caught:
        load_suite(suite, registry)
    assert "small.toml" in str(caught.value)


def test_a_margin_of_a_question_that_is_not_asked_is_refused(
    suite: Path, registry: Registry
) -> None:
    head = SUITE.split("[[metric]]")[0]
    suite.write_text(f'{head}[[metric]]\nname = "fidelity"\n[question."unique?"]\nunique = 0.5\n')
    with pytest.raises(CanonError, match=r"cannot ask 'unique\?' without metric seed_match"):
        load_suite(suite, registry)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_margin_without_ends_still_is_a_finite_number(value: float) -> None:
    mine = Question("mine?", ("fidelity",), ("yes",), lambda block, margins: [],
                    margins=(Margin("most", 1.0, "a limit"),))  # fmt: skip
    tables = {"mine?": {"most": value}}
    with pytest.raises(CanonError, match="'most' must be a finite number"):
        parse_questions(tables, {"fidelity"}, {"mine?": mine}, file="it.toml")
