"""Where latents fire, against loops over every token."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from tiny_models import WIDTH as TINY_WIDTH
from tiny_models import letter_tokenizer, tiny
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from saebench_canon.data.hook_points import resolve_hook
from saebench_canon.inputs.tokens import Tokens
from saebench_canon.kernels.codes import Codes
from saebench_canon.latents.contexts import Text
from saebench_canon.latents.evidence import APART, CONTEXTS, TOKENS, Observed
from saebench_canon.latents.unembedding import logits_along

LINES = ("the cat sat on the mat and the dog did not", "a dog and a cat and a mat", "cats")
WIDTH = 7


def tokenizer() -> Any:
    """A token for each letter, which decodes to the letters side by side."""
    letters = letter_tokenizer()
    letters.backend_tokenizer.decoder = decoders.Fuse()
    return letters


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    """A window of letters for each line, BOS first, padded."""
    rows = [[1, *tokenizer().encode(line, add_special_tokens=False)] for line in LINES]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    length = torch.tensor([len(row) for row in rows])
    return Tokens(ids, length, torch.tensor([0, 0, 1]), 2, True, ("first", "second"))


@pytest.fixture(scope="module")
def dense(tokens: Tokens) -> torch.Tensor:
    """Codes of every kept token; latent 6 is dead, latent 5 fires once."""
    g = torch.Generator().manual_seed(0)
    n = int(tokens.counts.sum())
    codes = torch.rand(n, WIDTH, generator=g) * (torch.rand(n, WIDTH, generator=g) < 0.4)
    codes[:, 5:] = 0
    codes[n // 2, 5] = 2.5
    return codes


@pytest.fixture(scope="module")
def observed(tokens: Tokens, dense: torch.Tensor) -> Observed:
    text = Text(tokens, tokenizer())
    return Observed(torch.eye(WIDTH), Codes.from_dense(dense), tokens.token_doc, text)


LETTERS = "".join(LINES)  # each kept token in order


def test_how_often_a_latent_fires_is_counted(observed: Observed, dense: torch.Tensor) -> None:
    for latent in range(6):
        active = dense[:, latent] > 0
        documents = {
            int(token >= len(LINES[0]) + len(LINES[1])) for token in active.nonzero()[:, 0]
        }
        firing = observed.firing(latent)
        assert firing is not None
        assert (firing.tokens, firing.all_tokens) == (int(active.sum()), len(LETTERS))
        assert firing.documents == len(documents)
        assert firing.mean == pytest.approx(float(dense[active, latent].mean()))
        assert firing.largest == pytest.approx(float(dense[:, latent].max()))


def shares(dense: torch.Tensor, latent: int) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for letter, code in zip(LETTERS, dense[:, latent].tolist(), strict=True):
        sums[letter] += code
    return {letter: total / sum(sums.values()) for letter, total in sums.items()}


@pytest.mark.parametrize("weights", [{0: 1.0}, {5: 0.3}, {0: 0.7, 3: 0.2, 5: 0.1}])
def test_shares_of_tokens_are_those_of_summed_codes(
    observed: Observed, dense: torch.Tensor, weights: dict[int, float]
) -> None:
    expected: dict[str, float] = defaultdict(float)
    for latent, weight in weights.items():
        for letter, share in shares(dense, latent).items():
            expected[letter] += weight / sum(weights.values()) * share
    tokens = observed.tokens(weights)
    assert [token.share for token in tokens] == pytest.approx(
        sorted((share for share in expected.values() if share), reverse=True)[:TOKENS]
    )
    for token in tokens:
        assert token.share == pytest.approx(expected[token.text])
        assert token.base == pytest.approx(LETTERS.count(token.text) / len(LETTERS))


@pytest.mark.parametrize("weights", [{1: 1.0}, {5: 1.0}, {0: 0.7, 3: 0.2, 5: 0.1}])
def test_contexts_are_where_the_weighed_codes_are_largest(
    observed: Observed, dense: torch.Tensor, weights: dict[int, float]
) -> None:
    scores = sum(weight * dense[:, latent].double() for latent, weight in weights.items())
    assert isinstance(scores, torch.Tensor)
    contexts = observed.contexts(weights)
    assert 0 < len(contexts) <= CONTEXTS
    assert contexts[0].code == pytest.approx(float(scores.max()))
    assert [context.code for context in contexts] == sorted(
        (context.code for context in contexts), reverse=True
    )
    positions = []
    for context in contexts:
        index = int((scores - context.code).abs().argmin())
        assert context.token == LETTERS[index]
        line = next(i for i in range(3) if index < sum(map(len, LINES[: i + 1])))
        position = index - sum(map(len, LINES[:line]))
        assert LINES[line][:position].endswith(context.before)
        assert LINES[line][position + 1 :].startswith(context.after)
        assert context.document == ("second" if line == 2 else "first")
        assert all(
            line != other_line or abs(position - other_position) >= APART
            for other_line, other_position in positions
        )
        positions.append((line, position))


def test_a_context_reads_as_the_text_up_to_the_window_without_bos(observed: Observed) -> None:
    assert observed.text is not None
    first = observed.text.context(0, 1.0)
    assert (first.before, first.token, first.after) == ("", "t", LINES[0][1:25])
    last = observed.text.context(len(LETTERS) - 1, 1.0)
    assert (last.before, last.token, last.after, last.document) == ("cat", "s", "", "second")


def test_spaces_around_a_token_are_kept_where_decoding_drops_them() -> None:
    words = ["<s>", "▁the", "▁cat", "s", "▁sat"]
    tokenizer_ = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, "<s>")
    )
    tokenizer_.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer_, bos_token="<s>")
    ids = torch.tensor([[0, 1, 2, 3, 4]])
    text = Text(Tokens(ids, torch.tensor([5]), torch.tensor([0]), 1, True), fast)
    contexts = [text.context(index, 1.0) for index in range(4)]
    assert [(context.before, context.token, context.after) for context in contexts] == [
        ("", " the", " cats sat"),
        ("the", " cat", "s sat"),
        ("the cat", "s", " sat"),
        ("the cats", " sat", ""),
    ]


def test_copied_passages_are_shown_once(tokens: Tokens) -> None:
    dense = torch.zeros(len(LETTERS), 1)
    starts = [start for start in range(len(LETTERS)) if LETTERS.startswith("cat", start)]
    dense[starts] = 1.0
    text = Text(tokens, tokenizer())
    contexts = Observed(torch.eye(1), Codes.from_dense(dense), None, text).contexts({0: 1.0})
    assert len(starts) == 3
    assert [context.document for context in contexts] == ["first", "first", "second"]
    twice = Tokens(tokens.input_ids[[0, 0]], tokens.length[[0, 0]], torch.tensor([0, 1]), 2, True)
    codes = Codes.from_dense(dense[: len(LINES[0])].repeat(2, 1))
    observed = Observed(torch.eye(1), codes, None, Text(twice, tokenizer()))
    assert len(observed.contexts({0: 1.0})) == 1


def test_without_text_or_codes_there_is_no_evidence(dense: torch.Tensor) -> None:
    bare = Observed(torch.eye(WIDTH))
    assert (bare.firing(0), bare.tokens({0: 1.0}), bare.contexts({0: 1.0})) == (None, (), ())
    without_text = Observed(torch.eye(WIDTH), Codes.from_dense(dense))
    assert without_text.tokens({0: 1.0}) == without_text.contexts({0: 1.0}) == ()
    assert without_text.promoted({0: 1.0}) == ()
    assert without_text.firing(5) is not None


def test_a_meta_latent_promotes_what_its_rows_do_beyond_their_mean(dense: torch.Tensor) -> None:
    lm = tiny("llama")
    hook = resolve_hook(lm.model, "blocks.1.hook_resid_pre")
    rows = torch.randn(WIDTH, TINY_WIDTH, generator=torch.Generator().manual_seed(2))
    observed = Observed(rows, Codes.from_dense(dense), model=(lm, hook))
    (logits,) = logits_along(lm, hook, rows[2:3].double())
    best = [float(logit) for logit in logits.sort(descending=True).values[:TOKENS]]
    assert [token.z for token in observed.promoted({2: 0.4})] == pytest.approx(best, abs=1e-4)
    beyond = rows - rows[:6].mean(dim=0)  # of those that are live
    (several,) = logits_along(lm, hook, (0.4 * beyond[2] + 0.3 * beyond[4])[None])
    best = [float(logit) for logit in several.sort(descending=True).values[:TOKENS]]
    promoted = observed.promoted({2: 0.4, 4: 0.3})
    assert [token.z for token in promoted] == pytest.approx(best, abs=1e-4)
    assert promoted[0].text == lm.tokenizer.decode([int(several.argmax())])
