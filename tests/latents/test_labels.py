"""What latents are called: the built-in token lists, and plugins that know better."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from pages import EXAMPLES

from saebench_canon.errors import CanonError
from saebench_canon.latents.labels import label_of, token_list
from saebench_canon.plugin.evidence import Evidence, Promoted, Token
from saebench_canon.plugin.registry import load_registry


def evidence(*tokens: Token, promoted: tuple[str, ...] = ()) -> Evidence:
    return Evidence(
        "small", 3, tokens=tokens, promoted=tuple(Promoted(token, 3.0) for token in promoted)
    )


def test_the_label_names_the_tokens_that_stand_out_most_first() -> None:
    seen_on = evidence(
        Token(" the", 0.50, 0.50), Token(" Einstein", 0.20, 0.001), Token(" Bohr", 0.30, 0.001)
    )
    assert token_list(seen_on) == "Bohr · Einstein"


def test_a_token_with_and_without_its_space_is_named_once() -> None:
    seen_on = evidence(Token("if", 0.3, 0.1), Token(" if", 0.3, 0.1), Token("If", 0.35, 0.1))
    assert token_list(seen_on) == "if · If"


def test_surplus_is_the_tokens_part_of_the_divergence_from_the_text() -> None:
    tokens = [Token("a", 0.7, 0.2), Token("b", 0.3, 0.8)]
    assert tokens[0].surplus == pytest.approx(0.7 * math.log(3.5))
    assert tokens[1].surplus == 0


def test_tokens_of_spaces_have_a_name() -> None:
    assert token_list(evidence(Token("\n\n", 0.6, 0.1), Token("  ", 0.4, 0.1))) == "⏎⏎ · ␣␣"


def test_without_text_the_label_names_what_is_promoted_and_says_so() -> None:
    assert token_list(evidence(promoted=(" one", "one", " two"))) == "→ one · two"


def test_without_any_evidence_there_is_no_label() -> None:
    assert token_list(evidence()) is None


def plugin(folder: Path, answer: str) -> Path:
    path = folder / "mine.py"
    path.write_text(
        "from saebench_canon import hookimpl\n\n\n"
        f"@hookimpl\ndef canon_label(evidence):\n    return {answer}\n"
    )
    return path


def test_a_plugins_label_comes_before_the_token_list(tmp_path: Path) -> None:
    seen_on = evidence(Token("a", 1.0, 0.1))
    assert label_of(seen_on, load_registry()) == "a"
    theirs = load_registry([plugin(tmp_path, "f'{evidence.kind}  {evidence.latent}\\n'")])
    assert label_of(seen_on, theirs) == "latent 3"


def test_a_plugin_without_an_answer_leaves_it_to_the_token_list(tmp_path: Path) -> None:
    seen_on = evidence(Token("a", 1.0, 0.1))
    assert label_of(seen_on, load_registry([plugin(tmp_path, "None")])) == "a"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("1 / 0", "a plugin failed to label latent 3 of small: ZeroDivisionError"),
        ("7", "a plugin labels latent 3 of small with 7, which is not text"),
    ],
)
def test_a_plugin_that_fails_is_a_sentence(tmp_path: Path, answer: str, sentence: str) -> None:
    with pytest.raises(CanonError, match=sentence):
        label_of(evidence(), load_registry([plugin(tmp_path, answer)]))


def test_the_plugin_of_the_docs_names_latents_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("named.py").write_text(EXAMPLES["label"])
    Path("labels.json").write_text(json.dumps({"latent small:3": "Einstein"}))
    registry = load_registry([Path("named.py")])
    assert label_of(evidence(Token("a", 1.0, 0.1)), registry) == "Einstein"
    larger = Evidence("large", 3, tokens=(Token("a", 1.0, 0.1),))
    assert label_of(larger, registry) == "a"
