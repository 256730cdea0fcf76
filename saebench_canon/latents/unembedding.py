"""Which tokens a direction of the residual stream promotes, by itself, in a language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saebench_canon.data.hooks import HookPoint
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
    the unembedding; `(norm(w) − norm(−w))/2` is that norm without its bias. No layer in between
    is asked.

    Raises:
        CanonError: the hook is not the residual stream, or the model's last norm is not known.
    """
    if not hook.writes:
        raise CanonError(f"{hook.name} is not the residual stream, so its directions promote none")
    norm, unembedding = _last_norm(lm.model), lm.model.get_output_embeddings()
    if norm is None or unembedding is None:
        raise CanonError(f"the last norm and unembedding of {lm.name} are not known")
    weight = unembedding.weight[: len(lm.tokenizer)]
    if directions.shape[1] != weight.shape[1]:
        raise CanonError(
            f"the unembedding reads width {weight.shape[1]}, and rows have {directions.shape[1]}"
        )
    with torch.no_grad():
        w = directions * directions.shape[1] ** 0.5 / directions.norm(dim=1, keepdim=True)
        w = w.to(weight)
        found = (norm(w) - norm(-w)) / 2
        logits: Tensor = (found @ weight.T).double().cpu()
    return (logits - logits.mean(dim=1, keepdim=True)) / logits.std(dim=1, keepdim=True)


def _last_norm(model: Any) -> Any:
    modules = dict(model.named_modules())
    return next((modules[name] for name in NORMS if name in modules), None)
