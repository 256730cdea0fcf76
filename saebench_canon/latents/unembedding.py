"""Which tokens a direction of the residual stream promotes in a language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saebench_canon.data.hook_points import HookPoint
from saebench_canon.data.language_model import LanguageModel
from saebench_canon.errors import CanonError

NORMS = (  # the last norm before the unembedding, by family
    "transformer.ln_f",
    "gpt_neox.final_layer_norm",
    "model.norm",
    "model.language_model.norm",
    "language_model.model.norm",
    "model.final_layernorm",
    "model.decoder.final_layer_norm",
)


def logits_along(lm: LanguageModel, hook: HookPoint, directions: Tensor) -> Tensor:
    """Logits of every token [k, V] along directions [k, d], standardised over the tokens.

    The direct path of the logit lens: the final norm's gain (and centring, of a LayerNorm), then
    the unembedding; `(norm(w) − norm(−w))/2` is that norm without its bias. The layers in
    between are ignored.

    Raises:
        CanonError: the hook is not the residual stream, or the model's last norm is unknown.
    """
    if not hook.writes:
        raise CanonError(
            f"{hook.name} is not the residual stream, so its directions promote no tokens"
        )
    norm, unembedding = _last_norm(lm.model), lm.model.get_output_embeddings()
    if norm is None or unembedding is None:
        raise CanonError(f"the last norm or unembedding of {lm.name} is unknown")
    weight = unembedding.weight[: len(lm.tokenizer)]
    if directions.shape[1] != weight.shape[1]:
        raise CanonError(
            f"the unembedding has width {weight.shape[1]}, but decoder rows {directions.shape[1]}"
        )
    with torch.no_grad():
        w = directions * directions.shape[1] ** 0.5 / directions.norm(dim=1, keepdim=True)
        w = w.to(weight)
        normed = (norm(w) - norm(-w)) / 2
        logits: Tensor = (normed @ weight.T).double().cpu()
    return (logits - logits.mean(dim=1, keepdim=True)) / logits.std(dim=1, keepdim=True)


def _last_norm(model: Any) -> Any:
    modules = dict(model.named_modules())
    return next((modules[name] for name in NORMS if name in modules), None)
