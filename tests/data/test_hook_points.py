"""A hook name means the same value in every family of models."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, LAYER_NORM, LAYERS, tiny

from saebench_canon.data.hook_points import KINDS, centring_refused, resolve_hook
from saebench_canon.errors import CanonError
from saebench_canon.inputs.extraction import extract
from saebench_canon.inputs.spliced_loss import spliced_losses
from saebench_canon.inputs.tokens import Tokens

IDS = torch.arange(2, 22).view(2, 10)


def value(lm, name: str) -> torch.Tensor:
    """The value at a hook for two windows of ten tokens, none left out."""
    tokens = Tokens(IDS, torch.tensor([10, 10]), torch.tensor([0, 1]), 2, bos=False)
    return extract(lm, tokens, resolve_hook(lm.model, name)).x.view(2, 10, -1)


def blocks(lm) -> str:
    return resolve_hook(lm.model, "blocks.0.hook_resid_pre").module.removesuffix(".0")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stream_before_and_after_a_block_is_the_models_hidden_state(family):
    lm = tiny(family)
    with torch.no_grad():
        output = lm.model(
            input_ids=IDS,
            attention_mask=torch.ones_like(IDS),
            use_cache=False,
            output_hidden_states=True,
        )
    states = output.hidden_states
    for layer in range(LAYERS):
        assert torch.equal(value(lm, f"blocks.{layer}.hook_resid_pre"), states[layer])
    for layer in range(LAYERS - 1):  # the last hidden state is after the final norm
        assert torch.equal(value(lm, f"blocks.{layer}.hook_resid_post"), states[layer + 1])


@pytest.mark.parametrize("family", [each for each in FAMILIES if each != "gpt_neox"])
def test_a_block_adds_its_sublayers_to_the_stream(family):
    lm = tiny(family)
    pre, mid, post, attn, mlp = (
        value(lm, f"blocks.1.{kind}")
        for kind in (
            "hook_resid_pre",
            "hook_resid_mid",
            "hook_resid_post",
            "hook_attn_out",
            "hook_mlp_out",
        )
    )
    torch.testing.assert_close(mid, pre + attn)
    torch.testing.assert_close(post, mid + mlp)
    assert attn.abs().mean() > 0.01
    assert mlp.abs().mean() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_z_is_what_the_heads_found_side_by_side(family):
    lm = tiny(family)
    z = value(lm, "blocks.1.attn.hook_z")  # [2, 10, heads · d_head]
    hook = resolve_hook(lm.model, "blocks.1.attn.hook_z")
    projected = lm.model.get_submodule(hook.module)(z)
    attn = lm.model.get_submodule(hook.module.rpartition(".")[0])
    torch.testing.assert_close(projected, value(lm, hook.module))
    torch.testing.assert_close(projected, value(lm, hook.module.rpartition(".")[0]))
    heads, d_head = 2, 8
    values = head_values(lm, attn, family)  # [2, 10, heads, d_head]
    torch.testing.assert_close(z[:, 0].view(2, heads, d_head), values[:, 0])  # sees itself alone


@pytest.mark.parametrize("family", FAMILIES)
def test_z_can_be_replaced(family):
    lm = tiny(family)
    tokens = Tokens(IDS, torch.tensor([10, 10]), torch.tensor([0, 1]), 2, bos=False)
    z = resolve_hook(lm.model, "blocks.1.attn.hook_z")
    clean, count = spliced_losses(lm, tokens, z, "clean")
    same, _ = spliced_losses(lm, tokens, z, lambda x: x)
    assert torch.equal(clean, same)
    assert count.tolist() == [9, 9]
    zero, _ = spliced_losses(lm, tokens, z, "zero")
    # without what the heads found, attention adds what it would write of nothing
    out = resolve_hook(lm.model, z.module)
    nothing = lm.model.get_submodule(z.module)(torch.zeros(1, z_width(lm, z)))
    without, _ = spliced_losses(lm, tokens, out, lambda x: nothing.expand_as(x))
    torch.testing.assert_close(zero, without)
    assert not torch.allclose(zero, clean)


def z_width(lm, hook) -> int:
    return value(lm, hook.name).shape[-1]


def head_values(lm, attn, family: str) -> torch.Tensor:
    """What each head of the second block can copy from each token, [2, 10, heads, d_head]."""
    block = resolve_hook(lm.model, "blocks.1.hook_resid_pre").module
    norm = {"gpt2": "ln_1"}.get(family, "input_layernorm")
    read = lm.model.get_submodule(f"{block}.{norm}")(value(lm, "blocks.1.hook_resid_pre"))
    if family == "gpt2":
        return attn.c_attn(read).split(16, dim=-1)[2].view(2, 10, 2, 8)
    if family.startswith("gpt_neox"):
        return attn.query_key_value(read).view(2, 10, 2, 3, 8)[:, :, :, 2]
    return attn.v_proj(read).view(2, 10, 1, 8).expand(2, 10, 2, 8)


def test_a_parallel_block_adds_both_sublayers_and_has_no_middle():
    lm = tiny("gpt_neox")
    pre, attn, mlp, post = (
        value(lm, f"blocks.2.hook_{kind}")
        for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post")
    )
    torch.testing.assert_close(post, pre + attn + mlp)
    with pytest.raises(CanonError, match=r"parallel residual.*blocks\.2\.hook_resid_pre"):
        resolve_hook(lm.model, "blocks.2.hook_resid_mid")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_module_path_is_the_output_of_that_module(family):
    lm = tiny(family)
    path = blocks(lm)
    post = value(lm, "blocks.1.hook_resid_post")
    assert torch.equal(value(lm, f"{path}.1"), post)
    assert value(lm, f"{path}.1.mlp").shape == post.shape


def test_gemma_2_names_the_sublayers_outputs_after_their_norms():
    lm = tiny("gemma2")
    after = value(lm, "model.layers.1.post_feedforward_layernorm")
    assert torch.equal(value(lm, "blocks.1.hook_mlp_out"), after)
    assert not torch.equal(value(lm, "model.layers.1.mlp"), after)


def test_the_text_part_of_a_larger_model_has_the_same_names():
    names = ["model.language_model.layers", *(f"model.language_model.layers.{n}" for n in "01")]
    model = torch.nn.Module()
    for name in names:
        parent, at = model, name.split(".")
        for part in at:
            if not hasattr(parent, part):
                listed = part == "layers"
                parent.add_module(part, torch.nn.ModuleList() if listed else torch.nn.Module())
            parent = getattr(parent, part)
    model.config = type("Config", (), {"model_type": "gemma3"})()
    hook = resolve_hook(model, "blocks.1.hook_resid_post")
    assert (hook.module, hook.side) == ("model.language_model.layers.1", "output")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("blocks.3.hook_resid_pre", "is on layer 3, and the layers are 0 to 2"),
        ("blocks.1.hook_resid_prae", "Did you mean 'hook_resid_pre'"),
        ("blocks.1.attn.hook_zz", "Did you mean 'attn.hook_z'"),
        ("blocks.1.attn.hook_pattern", "by its path, such as transformer.h.1.mlp"),
        ("blocks.x.hook_resid_pre", "not of the form"),
        ("transformer.h.1.mlpp", "Did you mean 'transformer.h.1.mlp'"),
        ("zzz", "Its modules are"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, sentence):
    with pytest.raises(CanonError) as caught:
        resolve_hook(tiny("gpt2").model, name)
    assert sentence in str(caught.value)


def test_a_family_that_is_not_known_still_has_its_module_paths():
    lm = tiny("llama")
    lm.model.config.model_type = "mamba9"
    with pytest.raises(CanonError, match=r"not known for mamba9 models.*module path"):
        resolve_hook(lm.model, "blocks.0.hook_resid_pre")
    assert resolve_hook(lm.model, "model.layers.0").module == "model.layers.0"


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_stream_of_layer_norm_models_may_be_centred(family):
    model = tiny(family).model
    for kind in KINDS:
        if family == "gpt_neox" and kind == "hook_resid_mid":
            continue
        reason = centring_refused(model, resolve_hook(model, f"blocks.1.{kind}"))
        assert (reason is None) == (family in LAYER_NORM)
    assert centring_refused(model, resolve_hook(model, "blocks.1.attn.hook_z")) is not None


def test_centring_follows_the_place_and_not_its_name():
    model = tiny("gpt2").model
    assert centring_refused(model, resolve_hook(model, "transformer.h.1")) is None
    assert centring_refused(model, resolve_hook(model, "transformer.h.1.mlp.c_fc")) is not None


@pytest.mark.parametrize(
    ("module", "sentence"),
    [("transformer.wpe", "not one vector for each token"), ("transformer.h", "never calls")],
)
def test_a_module_without_a_vector_for_each_token_is_refused(module, sentence):
    with pytest.raises(CanonError, match=sentence):
        value(tiny("gpt2"), module)
