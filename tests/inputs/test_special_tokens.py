"""Special tokens in a text, and positions that are skipped, never count as activations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import LETTERS, VOCABULARY, tiny
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from saebench_canon.data.hook_points import resolve_hook
from saebench_canon.data.language_model import LanguageModel
from saebench_canon.data.text import Document
from saebench_canon.errors import CanonError
from saebench_canon.inputs.extraction import extract
from saebench_canon.inputs.spliced_loss import spliced_losses
from saebench_canon.inputs.tokens import Tokens, tokenize

IDS = {**VOCABULARY, "</s>": 29, "<user>": 30, "<end>": 31}
SPELT = {at: letter for letter, at in IDS.items()} | {1: "^", 29: "$", 30: "[", 31: "]"}


def special(*, bos: str | None = "<s>", eos: str | None = "</s>") -> LanguageModel:
    """A model with a tokenizer of letters that knows special tokens."""
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    for token in ("<s>", "</s>", "<user>", "<end>"):
        tokenizer.add_special_tokens([AddedToken(token, special=True)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token=bos, eos_token=eos
    )
    config = tiny("llama").model.config
    config.vocab_size = len(IDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for weight in model.parameters():
            weight.data = 0.3 * torch.randn_like(weight)
    return replace(tiny("llama"), model=model.eval().requires_grad_(False), tokenizer=fast)


LM = special()


def windows(*texts: str, lm: LanguageModel = LM, context: int = 12, **options: int) -> Tokens:
    documents = [Document(f"{at}", text) for at, text in enumerate(texts)]
    return tokenize(documents, lm, context=context, **options)  # type: ignore[arg-type]


def spelt(tokens: Tokens) -> list[str]:
    """Each window, with what counts in capitals."""
    return [
        "".join(
            letter.upper() if counts else letter
            for letter, counts in zip([SPELT[i] for i in row[:length]], flags[:length], strict=True)
        )
        for row, length, flags in zip(
            tokens.input_ids.tolist(), tokens.length.tolist(), tokens.mask.tolist(), strict=True
        )
    ]


@pytest.mark.parametrize("text", ["<s>abcdef ghi", "<s><s>abcdef ghi", "abcdef ghi</s>",
                                  "<s>abcdef ghi</s>", "</s><s>abcdef ghi<s>"])  # fmt: skip
def test_bos_and_eos_around_a_document_change_nothing(text: str) -> None:
    plain, wrapped = windows("abcdef ghi", "jkl mno pqr"), windows(text, "jkl mno pqr")
    assert spelt(wrapped) == spelt(plain) == ["^ABCDEF GHI", "^JKL MNO PQR"]
    hook = resolve_hook(LM.model, "blocks.1.hook_resid_post")
    assert extract(LM, wrapped, hook).x.equal(extract(LM, plain, hook).x)
    assert dict(plain.special) == {}
    assert sum(count for _, count in wrapped.special) == text.count("<")


def test_a_separator_inside_a_document_begins_a_window() -> None:
    tokens = windows("abc</s>defgh<s>ij kl", "mno")
    assert spelt(tokens) == ["^ABC", "^DEFGH", "^IJ KL", "^MNO"]
    assert tokens.doc.tolist() == [0, 0, 0, 1]
    assert dict(tokens.special) == {"<s>": 1, "</s>": 1}


def test_the_markup_of_a_chat_is_read_and_does_not_count() -> None:
    tokens = windows("<s><user>abc</s><end>defghijk", context=14)
    assert spelt(tokens) == ["^[ABC$]DEFGHIJ"]
    assert dict(tokens.special) == {"<s>": 1, "</s>": 1, "<user>": 1, "<end>": 1}


def test_a_tokenizer_without_bos_splits_at_its_eos() -> None:
    assert spelt(windows("abc</s>defghijklmno", lm=special(bos=None))) == ["ABC", "DEFGHIJKLMNO"]


def test_what_the_vocabulary_lacks_is_text() -> None:
    tokens = windows("ab!cdefghijk")
    assert tokens.special == ()
    assert tokens.counts.tolist() == [11]


def test_a_document_of_special_tokens_alone_is_none() -> None:
    tokens = windows("<user><end><user>", "abcdefghijk")
    assert tokens.names == ("1",)
    assert tokens.documents == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([*LETTERS[:5], "<s>", "</s>", "<user>", "<end>"]), max_size=40),
        min_size=1, max_size=5,
    ),
    st.integers(5, 12),
    st.integers(0, 3),
    st.none() | st.integers(1, 60),
)  # fmt: skip
def test_only_letters_count_and_a_limit_is_met_exactly(
    parts: list[list[str]], context: int, skip: int, limit: int | None
) -> None:
    texts = ["".join(words) for words in parts] + ["abcdeabcdeabcde"]
    tokens = windows(*texts, context=context + 1, skip=skip, limit=limit)  # type: ignore[arg-type]
    counted = tokens.input_ids[tokens.mask].tolist()
    assert set(counted) <= {IDS[letter] for letter in LETTERS}
    assert tokens.counts.sum() == len(counted) == len(tokens.token_doc) == len(tokens.positions)
    assert int(tokens.positions.min()) >= 1 + skip
    assert bool((tokens.counts > 0).all())
    everything = windows(*texts, context=context + 1, skip=skip)
    assert len(counted) == min(limit or 10**9, int(everything.counts.sum()))
    head = everything.input_ids[everything.mask].tolist()[: len(counted)]
    assert counted == head


def test_skipped_positions_are_read_and_do_not_count() -> None:
    assert spelt(windows("abcdefghijk", "lmnop", skip=2)) == ["^abCDEFGHIJK", "^lmNOP"]
    assert spelt(windows("abcdefghijkl", lm=special(bos=None), skip=1)) == ["aBCDEFGHIJKL"]
    hook = resolve_hook(LM.model, "blocks.1.hook_resid_post")
    every, later = windows("abcdefghijk", "lmnop"), windows("abcdefghijk", "lmnop", skip=2)
    assert extract(LM, later, hook).x.equal(extract(LM, every, hook).x[every.positions > 2])
    with pytest.raises(CanonError, match="context must be at least"):
        windows("abcdefghijk", context=4, skip=2)


def test_losses_are_at_tokens_that_count_before_one_that_counts() -> None:
    hook = resolve_hook(LM.model, "blocks.1.hook_resid_post")
    tokens = windows("<user>abc<end>defgh", "abcdefgh", context=16, skip=1)
    assert spelt(tokens) == ["^[ABC]DEFGH", "^aBCDEFGH"]
    clean, count = spliced_losses(LM, tokens, hook, "clean")
    assert count.tolist() == [2 + 4, 6]
    same, _ = spliced_losses(LM, tokens, hook, lambda x: x)
    torch.testing.assert_close(clean, same)


def test_tokens_survive_the_store(tmp_path: object) -> None:
    from pathlib import Path

    from saebench_canon.inputs.of_data import all_tokens

    assert isinstance(tmp_path, Path)
    for tokens in (windows("abcdefghijk", "lmnop"), windows("a<user>bc</s>defghijk", skip=1)):
        assert all_tokens.save is not None
        assert all_tokens.load is not None
        all_tokens.save(tokens, tmp_path)
        loaded = all_tokens.load(tmp_path)
        assert loaded.mask.equal(tokens.mask)
        assert loaded.input_ids.equal(tokens.input_ids)
        assert (loaded.special, loaded.names) == (tokens.special, tokens.names)


@pytest.mark.parametrize("text", ["<s>abcdef ghi", "abcdef ghi</s>", "<user>abcdef<end> ghi"])
def test_a_document_and_itself_with_special_tokens_are_twins(text: str) -> None:
    plain = "abcdef ghi"
    assert windows(plain, "jkl mno pqr", text).twins == (0, 1, 0)
    assert windows(plain, "abcdef gh").twins == (0, 1)
