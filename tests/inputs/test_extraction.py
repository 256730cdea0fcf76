"""Windows hold one document each, and every kept token has its activation whatever the batch."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import (
    FAMILIES,
    LAYER_NORM,
    STORIES,
    TINYSTORIES,
    VOCABULARY,
    WIDTH,
    letter_tokenizer,
    needs_stories,
    tiny,
)

from saebench_canon.data.hook_points import resolve_hook
from saebench_canon.data.language_model import LanguageModel, load_language_model
from saebench_canon.data.text import Document, iter_documents, text_source
from saebench_canon.errors import CanonError
from saebench_canon.inputs.extraction import extract
from saebench_canon.inputs.forward_pass import check_causal
from saebench_canon.inputs.mapped import open_activations
from saebench_canon.inputs.spliced_loss import baseline_losses
from saebench_canon.inputs.tokens import batches, tokenize
from saebench_canon.progress import listening

TEXTS = ("abcdefghijklmno", "x", "hello world", "yes", "the quick brown fox jumps")
GPT2, LLAMA = tiny("gpt2"), tiny("llama")
NO_BOS = tiny("qwen2", bos=False)


def documents(texts=TEXTS) -> list[Document]:
    return [Document(f"document {at}", text) for at, text in enumerate(texts)]


def spelt(tokens) -> list[str]:
    letters = {token: letter for letter, token in VOCABULARY.items()}
    letters[1] = "^"
    return [
        "".join(letters[token] for token in row[:length])
        for row, length in zip(tokens.input_ids.tolist(), tokens.length.tolist(), strict=True)
    ]


def test_windows_start_with_bos_and_never_mix_documents():
    tokens = tokenize(documents(), GPT2, context=8)
    assert spelt(tokens) == [
        "^abcdefg", "^hijklmn",  # the single "o" that is left predicts nothing
        "^hello w", "^orld",
        "^yes",
        "^the qui", "^ck brow", "^n fox j", "^umps",
    ]  # fmt: skip
    assert tokens.doc.tolist() == [0, 0, 1, 1, 2, 3, 3, 3, 3]
    assert tokens.documents == 4
    assert tokens.names == ("document 0", "document 2", "document 3", "document 4")
    assert tokens.counts.tolist() == [7, 7, 7, 4, 3, 7, 7, 7, 4]


def test_without_bos_every_token_is_kept():
    tokens = tokenize(documents(), NO_BOS, context=8)
    assert spelt(tokens)[:2] == ["abcdefgh", "ijklmno"]
    assert not tokens.bos
    assert tokens.counts.equal(tokens.length)
    assert int(tokens.mask.sum()) == int(tokens.length.sum())


@pytest.mark.parametrize("limit", [1, 7, 8, 20, 52])
def test_a_limit_is_met_exactly_and_reads_no_further(limit):
    read = []

    def stream():
        for document in documents(TEXTS * 3):
            read.append(document)
            yield document

    tokens = tokenize(stream(), GPT2, context=8, limit=limit)
    assert int(tokens.counts.sum()) == limit
    everything = "".join(spelt(tokenize(documents(TEXTS * 3), GPT2, context=8))).replace("^", "")
    assert "".join(spelt(tokens)).replace("^", "") == everything[:limit]
    assert len(read) <= 6


@given(
    st.lists(st.text("abc ", min_size=1, max_size=30), min_size=1, max_size=6),
    st.integers(3, 12),
    st.one_of(st.none(), st.integers(1, 40)),
)
@settings(max_examples=60, deadline=None)
def test_windows_hold_the_text_in_order(texts, context, limit):
    try:
        tokens = tokenize(documents(texts), GPT2, context=context, limit=limit)
    except CanonError:
        assert sum(map(len, texts)) < context - 1 or all(len(text) < 2 for text in texts)
        return
    held = ["" for _ in range(tokens.documents)]
    for text, doc in zip(spelt(tokens), tokens.doc.tolist(), strict=True):
        assert text[0] == "^"
        assert len(text) <= context
        held[doc] += text[1:]
    for name, text in zip(tokens.names, held, strict=True):
        assert texts[int(name.split()[1])].startswith(text)
    assert tokens.token_doc.equal(tokens.doc[tokens.mask.nonzero()[:, 0]])


@pytest.mark.parametrize(
    ("texts", "options", "sentence"),
    [
        (["abc"], {"context": 16}, "has 3 tokens, too few for one context of 16"),
        (["a"] * 30, {"context": 16}, "too few for one context"),
        (TEXTS, {"context": 65}, "context must be at most the model's 64 positions, got 65"),
        (TEXTS, {"context": 2}, "context must be at least 3, got 2"),
        (TEXTS, {"context": 8, "limit": 0}, "tokens must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_cut_into_windows_is_a_sentence(texts, options, sentence):
    with pytest.raises(CanonError) as caught:
        tokenize(documents(texts), GPT2, **options)
    assert sentence in str(caught.value)


def test_a_tokenizer_of_another_model_is_refused():
    lm = tiny("gpt2")
    lm.model.resize_token_embeddings(20)
    with pytest.raises(CanonError, match=r"gives token \d+, and the model has 20"):
        tokenize(documents(), lm, context=8)


@pytest.mark.parametrize("lm", [GPT2, LLAMA, NO_BOS], ids=lambda lm: lm.name)
def test_activations_are_those_of_each_window_by_itself(lm):
    tokens = tokenize(documents(), lm, context=8)
    hook = resolve_hook(lm.model, "blocks.1.hook_resid_post")
    rows = []
    for ids, length in zip(tokens.input_ids, tokens.length.tolist(), strict=True):
        with torch.no_grad():
            states = lm.model(input_ids=ids[None, :length], output_hidden_states=True)
        rows.append(states.hidden_states[2][0, int(tokens.bos) :])
    for batch_size in (1, 3, 100):
        acts = extract(lm, tokens, hook, batch_size=batch_size)
        torch.testing.assert_close(acts.x, torch.cat(rows), rtol=1e-4, atol=1e-5)
        assert acts.doc.equal(tokens.token_doc)
        assert acts.x.dtype == torch.float32


def test_activations_in_a_file_are_the_same(tmp_path):
    tokens = tokenize(documents(), GPT2, context=8)
    hook = resolve_hook(GPT2.model, "blocks.0.hook_mlp_out")
    here = extract(GPT2, tokens, hook)
    there = extract(GPT2, tokens, hook, out=tmp_path / "acts")
    assert torch.equal(here.x, there.x)
    assert np.array_equal(np.load(tmp_path / "acts"), here.x.numpy())
    there.x[0] = 0
    assert torch.equal(open_activations(tmp_path / "acts"), here.x)


def test_layers_beyond_the_hook_are_not_computed():
    lm = tiny("llama")
    hook = resolve_hook(lm.model, "blocks.1.hook_resid_pre")
    lm.model.model.layers[1].forward = lambda *_, **__: pytest.fail("the block was computed")
    tokens = tokenize(documents(), lm, context=8)
    assert extract(lm, tokens, hook).x.shape == (int(tokens.counts.sum()), WIDTH)
    assert not lm.model.model.layers[1]._forward_pre_hooks


@pytest.mark.parametrize("family", LAYER_NORM)
def test_centring_is_what_centred_writing_weights_do(family):
    lm, folded = tiny(family), tiny(family)
    for name, weight in folded.model.named_parameters():
        writes = ("wte", "wpe", "embed_in", "c_proj", "dense.", "dense_4h_to_h")
        if not any(part in name for part in writes) or "embed_out" in name:
            continue
        along = 0 if weight.ndim == 1 or family.startswith("gpt_neox") else 1
        if weight.ndim == 2 and "embed" in name:
            along = 1
        weight.data -= weight.data.mean(dim=along, keepdim=True)
    tokens = tokenize(documents(), lm, context=8)
    for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post"):
        hook = resolve_hook(lm.model, f"blocks.1.hook_{kind}")
        centred = extract(lm, tokens, hook, center=True)
        assert centred.x.mean(dim=1).abs().max() < 1e-5
        torch.testing.assert_close(centred.x, extract(folded, tokens, hook).x, rtol=1e-3, atol=1e-4)


def test_centring_is_refused_where_it_would_change_the_model():
    tokens = tokenize(documents(), LLAMA, context=8)
    hook = resolve_hook(LLAMA.model, "blocks.1.hook_resid_post")
    with pytest.raises(CanonError, match=r"cannot be centred: llama models read .* RMSNorm"):
        extract(LLAMA, tokens, hook, center=True)


def test_an_activation_that_is_not_finite_is_named():
    lm = tiny("gpt2")
    lm.model.transformer.wte.weight.data[VOCABULARY["w"]] = torch.nan
    tokens = tokenize(documents(), lm, context=8)
    sentence = r"not finite on token 7 \('w'\) of a window of 'document 2'"
    with pytest.raises(CanonError, match=sentence):
        extract(lm, tokens, resolve_hook(lm.model, "blocks.0.hook_resid_pre"))


def test_batches_hold_every_window_once_and_little_padding():
    tokens = tokenize(documents(), GPT2, context=8)
    found = batches(tokens, 2)
    assert sorted(torch.cat([batch.windows for batch in found]).tolist()) == list(range(9))
    assert [batch.input_ids.shape[1] for batch in found] == [8, 8, 8, 5, 4]
    with pytest.raises(CanonError, match="batch_size must be at least 1, got 0"):
        batches(tokens, 0)


def test_chosen_documents_keep_their_numbers():
    tokens = tokenize(documents(), GPT2, context=8)
    chosen = tokens.of(torch.tensor([False, True, False, True]))
    assert spelt(chosen) == spelt(tokens)[2:4] + spelt(tokens)[5:]
    assert chosen.documents == 4
    assert set(chosen.doc.tolist()) == {1, 3}


def test_progress_is_told():
    heard = []
    tokens = tokenize(documents(), GPT2, context=8)
    with listening(lambda *report: heard.append(report)):
        extract(GPT2, tokens, resolve_hook(GPT2.model, "blocks.0.hook_resid_pre"), batch_size=4)
    assert heard[-1] == ("activations at blocks.0.hook_resid_pre", 3, 3)


@needs_stories
def test_a_real_models_activations_do_not_depend_on_the_batch():
    lm = load_language_model(str(STORIES))
    stories = itertools.islice(iter_documents(text_source(str(TINYSTORIES))), 12)
    tokens = tokenize(stories, lm, context=128)
    assert tokens.documents == 12
    hook = resolve_hook(lm.model, "blocks.2.hook_resid_post")
    one = extract(lm, tokens, hook, batch_size=1)
    torch.testing.assert_close(extract(lm, tokens, hook).x, one.x, rtol=1e-4, atol=1e-4)


def test_a_full_disk_is_a_sentence_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tokenize(documents(), GPT2, context=8)

    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    hook = resolve_hook(GPT2.model, "blocks.1.hook_resid_post")
    with pytest.raises(CanonError, match=r"of activations cannot be written \(No space left"):
        extract(GPT2, tokens, hook, out=tmp_path / "acts.npy")


ENCODERS = {
    "bert": transformers.BertConfig,
    "roberta": transformers.RobertaConfig,
    "electra": transformers.ElectraConfig,
}


def encoder(family: str, init: float, **config) -> LanguageModel:
    sizes = {
        "vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 24, "initializer_range": init,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(
            ENCODERS[family](**sizes, pad_token_id=0, **config)
        )
    return LanguageModel(family, family, model.eval(), letter_tokenizer())


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize(  # with the usual start bfloat16 rounds off what little attention there is
    ("init", "dtype"), [(0.02, torch.float32), (0.3, torch.float32), (0.3, torch.bfloat16)]
)
def test_encoders_are_refused(family, init, dtype):
    lm = encoder(family, init)
    lm.model.to(dtype)
    tokens = tokenize(documents(), lm, context=16)
    point = resolve_hook(lm.model, family + ".encoder.layer.0")
    with pytest.raises(CanonError, match=r"not causal.*depend on later ones.*Encoders"):
        extract(lm, tokens, point)
    with pytest.raises(CanonError, match="not causal"):
        baseline_losses(lm, tokens, point, mean=torch.zeros(16))


@pytest.mark.parametrize("family", ENCODERS)
def test_the_same_models_as_decoders_are_causal(family):
    lm = encoder(family, 0.3, is_decoder=True)
    tokens = tokenize(documents(), lm, context=16)
    point = resolve_hook(lm.model, family + ".encoder.layer.0")
    assert len(extract(lm, tokens, point)) == int(tokens.counts.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_causal_models_pass_in_every_number_format(family, dtype):
    lm = tiny(family)
    lm.model.to(dtype)
    tokens = tokenize(documents(), lm, context=16)
    check_causal(lm, tokens)
    check_causal(lm, tokens, resolve_hook(lm.model, "blocks.2.hook_resid_post"))
