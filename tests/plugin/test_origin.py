"""When an SAE's own hook, model and BOS contradict the activations."""

from __future__ import annotations

import pytest

from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.origin import Origin, different_hooks, different_models, other_origin

SAME = [
    ("blocks.3.hook_resid_pre", "blocks.2.hook_resid_post"),
    ("transformer.h.2", "blocks.2.hook_resid_post"),
    ("model.layers.2", "blocks.3.hook_resid_pre"),
    ("gpt_neox.layers.7", "layers.7"),
    ("model.layers.5.mlp", "blocks.5.hook_mlp_out"),
    ("layers.5.self_attn", "blocks.5.hook_attn_out"),
    ("model.layers.4.mlp.down_proj", "blocks.4.hook_mlp_out"),  # may be one value
    ("model.layers.4.self_attn.o_proj", "blocks.4.hook_attn_out"),
    ("hook_embed", "blocks.0.hook_resid_pre"),  # where positions are not added
    ("encoder.layer.3.output", "blocks.3.hook_resid_post"),
    ("encoder.block", "blocks.4.hook_mlp_out"),  # nobody knows
]
DIFFERENT = [
    ("blocks.3.hook_resid_pre", "blocks.3.hook_resid_post"),
    ("blocks.3.hook_resid_pre", "blocks.2.hook_resid_pre"),
    ("blocks.3.hook_resid_post", "blocks.3.hook_mlp_out"),
    ("blocks.3.hook_resid_mid", "blocks.3.hook_resid_pre"),
    ("blocks.3.attn.hook_z", "blocks.3.hook_attn_out"),
    ("transformer.h.2", "blocks.2.hook_resid_pre"),
    ("model.layers.5.mlp", "blocks.6.hook_mlp_out"),
    ("model.layers.5.mlp", "model.layers.5"),
    ("model.layers.4.mlp.down_proj", "model.layers.8.mlp.down_proj"),
    ("model.layers.4.mlp.down_proj", "blocks.9.hook_resid_pre"),
    ("model.layers.3.self_attn.o_proj", "blocks.3.hook_resid_post"),
    ("model.layers.3.self_attn.q_proj", "blocks.3.hook_attn_out"),
    ("model.layers.3.mlp.up_proj", "blocks.3.hook_mlp_out"),
    ("blocks.3.ln1.hook_normalized", "blocks.3.hook_resid_post"),
    ("blocks.3.mlp.hook_post", "blocks.3.hook_mlp_out"),
    ("hook_embed", "blocks.3.hook_resid_post"),
    ("ln_final.hook_normalized", "blocks.3.hook_resid_post"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_names_of_one_value_do_not_differ(first: str, second: str) -> None:
    assert not different_hooks(first, second)
    assert not different_hooks(second, first)


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_names_of_two_values_differ(first: str, second: str) -> None:
    assert different_hooks(first, second)
    assert different_hooks(second, first)


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        ("gpt2-small", "gpt2", False),
        ("openai-community/gpt2", "gpt2-small", False),
        ("google/gemma-2-2b", "gemma-2-2b", False),
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b", False),
        ("gemma-2-2b", "google/gemma-2-2b-it", True),
        ("pythia-70m", "EleutherAI/pythia-70m-deduped", True),
        ("gpt2", "gpt2-medium", True),
        ("gpt2", "/cache/models--openai-community--gpt2/snapshots/607a30d", False),
        ("gpt2", "/cache/models--openai-community--gpt2-xl/snapshots/607a30d", True),
        ("gpt2", "./mine", False),  # a folder may hold any model
        ("tiny-lm", "packaged:tiny-lm", False),
    ],
)
def test_models_differ_by_their_names_without_owner(first: str, second: str, differ: bool) -> None:
    assert different_models(first, second) is differ
    assert different_models(second, first) is differ


def test_each_contradiction_has_its_sentence() -> None:
    sae = Description(
        8, 16, "relu", hook="blocks.3.hook_resid_pre", model="gpt2-small", prepend_bos=False
    )
    told = list(other_origin(sae, Origin("gpt2-medium", "blocks.5.hook_resid_pre", True)))
    assert told == [
        "trained at blocks.3.hook_resid_pre, measured at blocks.5.hook_resid_pre",
        "trained on the model gpt2-small, measured on gpt2-medium",
        "trained on windows without BOS, measured on windows with it",
    ]
    assert not list(other_origin(sae, Origin("gpt2", "blocks.2.hook_resid_post", False)))


def test_what_nobody_knows_contradicts_nothing() -> None:
    known = Origin("gpt2", "blocks.5.hook_resid_pre", True)
    assert not list(other_origin(Description(8, 16, "relu"), known))
    sae = Description(8, 16, "relu", hook="blocks.3.hook_mlp_out", model="m", prepend_bos=True)
    assert not list(other_origin(sae, Origin()))
