"""Which tokens a direction promotes, against each family's own arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, LAYER_NORM, WIDTH, tiny

from saebench_canon.data.hook_points import resolve_hook
from saebench_canon.errors import CanonError
from saebench_canon.latents.unembedding import logits_along


def gain(family: str, model: Any) -> torch.Tensor:
    """The last norm's gain as the family writes it."""
    if family == "gpt2":
        return model.transformer.ln_f.weight
    if family.startswith("gpt_neox"):
        return model.gpt_neox.final_layer_norm.weight
    return model.model.norm.weight + (1 if family.startswith("gemma") else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_last_norms_gain_and_the_unembedding(family: str) -> None:
    lm = tiny(family)
    w = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
    computed = logits_along(lm, resolve_hook(lm.model, "blocks.1.hook_resid_post"), w)
    centred = w - w.mean(dim=1, keepdim=True) if family in LAYER_NORM else w
    rows = lm.model.get_output_embeddings().weight[: len(lm.tokenizer)]
    logits = ((centred * gain(family, lm.model)) @ rows.T).double()
    expected = (logits - logits.mean(dim=1, keepdim=True)) / logits.std(dim=1, keepdim=True)
    torch.testing.assert_close(computed, expected, rtol=1e-3, atol=1e-3)


def test_the_length_of_a_direction_does_not_matter_and_its_sign_does() -> None:
    lm = tiny("llama")
    hook = resolve_hook(lm.model, "blocks.1.hook_resid_pre")
    w = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))
    row, longer, opposite = logits_along(lm, hook, torch.cat([w, 7 * w, -w]))
    torch.testing.assert_close(row, longer, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(row, -opposite, rtol=1e-4, atol=1e-4)


def test_where_directions_promote_nothing_that_is_a_sentence() -> None:
    lm = tiny("llama")
    heads = resolve_hook(lm.model, "blocks.1.attn.hook_z")
    with pytest.raises(CanonError, match="not the residual stream"):
        logits_along(lm, heads, torch.ones(1, WIDTH))
    stream = resolve_hook(lm.model, "blocks.1.hook_resid_pre")
    with pytest.raises(CanonError, match=f"has width {WIDTH}, but decoder rows 3"):
        logits_along(lm, stream, torch.ones(1, 3))
    lm.model.model.last = lm.model.model.norm
    del lm.model.model.norm
    with pytest.raises(CanonError, match="is unknown"):
        logits_along(lm, stream, torch.ones(1, WIDTH))
