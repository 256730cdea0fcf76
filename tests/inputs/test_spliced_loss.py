"""Losses with a replaced activation: an identity costs nothing, a replacement what it should."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_models import FAMILIES, LAYER_NORM, STORIES, TINYSTORIES, needs_stories, tiny
from torch.nn import functional

from saebench_canon.data.hook_points import KINDS, resolve_hook
from saebench_canon.data.language_model import load_language_model
from saebench_canon.data.text import Document, iter_documents, text_source
from saebench_canon.errors import CanonError
from saebench_canon.inputs.extraction import extract
from saebench_canon.inputs.spliced_loss import baseline_losses, spliced_losses
from saebench_canon.inputs.tokens import tokenize

TEXTS = ("abcdefghijklmno", "hello world", "yes", "the quick brown fox jumps")
DOCUMENTS = [Document(str(at), text) for at, text in enumerate(TEXTS)]


def hooks_of(family: str) -> list[str]:
    """Hooks in the second block: input hooks, output hooks, tuples, and one beside a bypass."""
    return [
        f"blocks.1.{kind}"
        for kind in KINDS
        if not (family == "gpt_neox" and kind == "hook_resid_mid")
    ]


def plain_clean_losses(lm, tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses by document, one window and one token at a time."""
    sums, counts = torch.zeros(tokens.documents), torch.zeros(tokens.documents)
    for window, doc in enumerate(tokens.doc.tolist()):
        ids = tokens.input_ids[window, : tokens.length[window]]
        with torch.no_grad():
            logits = lm.model(input_ids=ids[None]).logits[0]
        for place in range(int(tokens.bos), len(ids) - 1):
            sums[doc] += functional.cross_entropy(logits[place], ids[place + 1])
            counts[doc] += 1
    return sums, counts


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_clean_losses_are_those_of_each_token(bos, batch_size):
    lm = tiny("llama", bos=bos)
    tokens = tokenize(DOCUMENTS, lm, context=8)
    hook = resolve_hook(lm.model, "blocks.1.hook_resid_post")
    sums, counts = spliced_losses(lm, tokens, hook, "clean", batch_size=batch_size)
    expected_sums, expected_counts = plain_clean_losses(lm, tokens)
    torch.testing.assert_close(sums.float(), expected_sums, rtol=1e-4, atol=1e-4)
    assert counts.tolist() == expected_counts.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_identity_gives_exactly_the_clean_loss(family):
    lm = tiny(family)
    tokens = tokenize(DOCUMENTS, lm, context=8)
    for name in [*hooks_of(family), resolve_hook(lm.model, "blocks.1.hook_mlp_out").module]:
        hook = resolve_hook(lm.model, name)
        clean, _ = spliced_losses(lm, tokens, hook, "clean")
        same, _ = spliced_losses(lm, tokens, hook, lambda x: x)
        assert torch.equal(same, clean)
        other, _ = spliced_losses(lm, tokens, hook, lambda x: -3 * x)
        assert ((other - clean).abs() > 1e-4).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_replacing_the_stream_is_the_same_from_either_side_of_a_seam(family):
    lm = tiny(family)
    tokens = tokenize(DOCUMENTS, lm, context=8)
    change = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    after, before = (
        spliced_losses(lm, tokens, resolve_hook(lm.model, name), lambda x: x @ change)[0]
        for name in ("blocks.0.hook_resid_post", "blocks.1.hook_resid_pre")
    )
    assert torch.equal(after, before)


@pytest.mark.parametrize("family", [each for each in FAMILIES if each != "gpt_neox"])
def test_replacing_the_middle_of_a_block_replaces_what_runs_past_the_mlp(family):
    """Shifting the stream halfway is the same as shifting what attention adds to it."""
    lm = tiny(family)
    tokens = tokenize(DOCUMENTS, lm, context=8)
    shift = torch.randn(16, generator=torch.Generator().manual_seed(0))
    middle, attention = (
        spliced_losses(
            lm,
            tokens,
            resolve_hook(lm.model, f"blocks.1.{kind}"),
            lambda x: x + shift,
        )[0]
        for kind in ("hook_resid_mid", "hook_attn_out")
    )
    torch.testing.assert_close(middle, attention, rtol=1e-4, atol=1e-4)


def test_bos_and_padding_keep_their_activations():
    lm = tiny("gpt2")
    tokens = tokenize(DOCUMENTS, lm, context=8)
    hook = resolve_hook(lm.model, "blocks.1.hook_resid_post")
    acts = extract(lm, tokens, hook).x
    given = []

    def reconstruct(x):
        given.append(x)
        return x

    spliced_losses(lm, tokens, hook, reconstruct)
    ours = torch.cat(given)
    assert len(ours) == len(acts)
    torch.testing.assert_close(ours.sum(0), acts.sum(0), rtol=1e-3, atol=1e-3)


def test_ablations_are_reconstructions_by_a_constant():
    lm = tiny("gemma2")
    tokens = tokenize(DOCUMENTS, lm, context=8)
    hook = resolve_hook(lm.model, "blocks.1.hook_resid_post")
    mean = extract(lm, tokens, hook).x.mean(dim=0)
    found = baseline_losses(lm, tokens, hook, mean=mean)
    zero, _ = spliced_losses(lm, tokens, hook, lambda x: 0 * x)
    constant, count = spliced_losses(lm, tokens, hook, lambda x: 0 * x + mean)
    torch.testing.assert_close(found.ce_zero, zero)
    torch.testing.assert_close(found.ce_mean, constant)
    assert torch.equal(found.count, count)
    losses = found.with_sae(zero)
    assert torch.equal(losses.ce_sae, zero)
    assert torch.equal(losses.ce_clean, found.ce_clean)


@pytest.mark.parametrize("family", LAYER_NORM)
def test_with_centring_the_reconstruction_is_of_the_centred_activation(family):
    lm = tiny(family)
    tokens = tokenize(DOCUMENTS, lm, context=8)
    change = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    change = change - change.mean(dim=1, keepdim=True)
    for name in hooks_of(family):
        hook = resolve_hook(lm.model, name)
        clean, _ = spliced_losses(lm, tokens, hook, "clean", center=True)
        same, _ = spliced_losses(lm, tokens, hook, lambda x: x, center=True)
        assert torch.equal(same, clean)
        # without the mean that is put back, a LayerNorm model computes the same
        centred, _ = spliced_losses(lm, tokens, hook, lambda x: x @ change, center=True)
        by_hand, _ = spliced_losses(
            lm,
            tokens,
            hook,
            lambda x: (x - x.mean(dim=1, keepdim=True)) @ change,
        )
        torch.testing.assert_close(centred, by_hand, rtol=1e-3, atol=1e-3)


def test_documents_left_out_have_no_losses():
    lm = tiny("gpt2")
    tokens = tokenize(DOCUMENTS, lm, context=8)
    hook = resolve_hook(lm.model, "blocks.1.hook_resid_post")
    every, counts = spliced_losses(lm, tokens, hook, "clean")
    some, fewer = spliced_losses(
        lm, tokens.of(torch.tensor([True, False, True, False])), hook, "clean"
    )
    assert fewer.tolist() == [int(counts[0]), 0, int(counts[2]), 0]
    torch.testing.assert_close(some[fewer > 0], every[fewer > 0])


def test_the_model_is_left_without_hooks_even_after_an_error():
    lm = tiny("gpt2")
    tokens = tokenize(DOCUMENTS, lm, context=8)
    hook = resolve_hook(lm.model, "blocks.1.hook_resid_mid")
    with pytest.raises(ZeroDivisionError):
        spliced_losses(lm, tokens, hook, lambda x: x * (1 / 0))
    for module in lm.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


@pytest.mark.parametrize(
    ("module", "sentence"),
    [("transformer.wpe", "not one vector for each token"), ("transformer.h", "never calls")],
)
def test_a_place_that_cannot_be_replaced_is_refused(module, sentence):
    lm = tiny("gpt2")
    tokens = tokenize(DOCUMENTS, lm, context=8)
    with pytest.raises(CanonError, match=sentence):
        spliced_losses(lm, tokens, resolve_hook(lm.model, module), "zero", batch_size=2)


def test_centring_an_rms_norm_model_is_refused():
    lm = tiny("qwen3")
    tokens = tokenize(DOCUMENTS, lm, context=8)
    hook = resolve_hook(lm.model, "blocks.1.hook_resid_post")
    with pytest.raises(CanonError, match="RMSNorm, which keeps the mean"):
        spliced_losses(lm, tokens, hook, "clean", center=True)


@needs_stories
def test_a_real_model_predicts_its_stories():
    lm = load_language_model(str(STORIES))
    stories = itertools.islice(iter_documents(text_source(str(TINYSTORIES))), 0, None, 16)
    tokens = tokenize(stories, lm, context=128)
    hook = resolve_hook(lm.model, "blocks.2.hook_resid_post")
    mean = extract(lm, tokens, hook).x.mean(dim=0)
    found = baseline_losses(lm, tokens, hook, mean=mean)
    clean, zero, ablated = (
        float(sums.sum() / found.count.sum())
        for sums in (found.ce_clean, found.ce_zero, found.ce_mean)
    )
    assert clean == pytest.approx(1.73, abs=0.1)  # said of it on all the stories
    assert zero > clean + 1
    assert ablated > clean + 1
