"""Cross-entropy of a language model whose activations are replaced.

Activations are replaced at the tokens that count (see `tokens`). A loss is taken at each of
them that has a next token in its window. BOS keeps its activation, since no SAE is trained on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from saebench_canon.data.hook_points import HookPoint, first, with_first
from saebench_canon.data.language_model import LanguageModel
from saebench_canon.inputs.extraction import check_centring
from saebench_canon.inputs.forward_pass import (
    check_causal,
    check_shape,
    forward,
    module_input,
    never_ran,
)
from saebench_canon.inputs.normalise import normalise
from saebench_canon.inputs.tokens import Batch, Tokens, batches
from saebench_canon.plugin.adapter import Normalisation
from saebench_canon.progress import track

Replace = Callable[[Tensor], Tensor]  # [n, d] -> [n, d]
Replacement = Literal["clean", "zero"] | Tensor | Replace  # of activations


@dataclass(frozen=True, eq=False)
class Losses:
    """Sums of cross-entropy in nats by document, [docs] float64, and their numbers of tokens."""

    ce_clean: Tensor
    ce_sae: Tensor
    ce_zero: Tensor
    ce_mean: Tensor
    count: Tensor  # [docs] int64


@dataclass(frozen=True, eq=False)
class BaselineLosses:
    """The part of `Losses` that depends on the data alone and serves every SAE."""

    ce_clean: Tensor
    ce_zero: Tensor
    ce_mean: Tensor
    count: Tensor

    def with_sae(self, ce_sae: Tensor) -> Losses:
        """These and the losses with one SAE's reconstruction."""
        return Losses(self.ce_clean, ce_sae, self.ce_zero, self.ce_mean, self.count)


def baseline_losses(
    lm: LanguageModel,
    tokens: Tokens,
    hook: HookPoint,
    *,
    mean: Tensor,
    batch_size: int = 16,
    center: bool = False,
    normalize: Normalisation | None = None,
) -> BaselineLosses:
    """The clean, the zero-ablated and the mean-ablated losses; `mean` [d] is the data's mean."""
    check_causal(lm, tokens)
    options: dict[str, Any] = {
        "batch_size": batch_size, "center": center, "normalize": normalize,
    }  # fmt: skip
    clean, count = spliced_losses(lm, tokens, hook, "clean", **options)
    zero, _ = spliced_losses(lm, tokens, hook, "zero", **options)
    ablated, _ = spliced_losses(lm, tokens, hook, mean, **options)
    return BaselineLosses(clean, zero, ablated, count)


def spliced_losses(
    lm: LanguageModel,
    tokens: Tokens,
    hook: HookPoint,
    replacement: Replacement,
    *,
    batch_size: int = 16,
    center: bool = False,
    normalize: Normalisation | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of cross-entropy in nats [docs] float64 and count of tokens [docs] int64, by document.

    `replacement` of the activations x [n, d] float32 at the tokens that count: a function of x to
    [n, d], such as an SAE's reconstruction; "zero", the zero vector; a vector [d], such as the
    mean; or "clean", which leaves the model as it is.

    With `center`, x is the centred activation (see `extract`) and so are reconstruction and vector.
    The reconstruction goes in as `v + (f(x) − x)`, with v the uncentred activation: adding the mean
    over d again changes nothing in a LayerNorm model, but makes an identity exact. A vector goes in
    as it is, for the same reason.

    With `normalize`, a function gets the normalised activations, and its output is scaled back.

    Raises:
        CanonError: centring would change the model, or the hook does not suit (see `extract`).
    """
    check_centring(lm, hook, center)
    replace = _replace(replacement, center, normalize)
    sums = torch.zeros(tokens.documents, dtype=torch.float64)
    counts = torch.zeros(tokens.documents, dtype=torch.int64)
    parts = batches(tokens, batch_size)
    for batch in track(parts, f"{_name(replacement)} losses at {hook.name}", len(parts)):
        with _replaced(lm, hook, batch, replace):
            logits = forward(lm, batch).logits
        # a window at a time: float32 logits of a whole batch would take much memory
        losses = [_window_losses(logits[row], batch, row) for row in range(len(batch.windows))]
        docs = tokens.doc[batch.windows].repeat_interleave(torch.tensor(list(map(len, losses))))
        sums.index_add_(0, docs, torch.cat(losses).cpu().double())
        counts += torch.bincount(docs, minlength=tokens.documents)
    return sums, counts


def _window_losses(logits: Tensor, batch: Batch, row: int) -> Tensor:
    """Cross-entropy of the next token at a window's tokens that count, but the last; [n − 1]."""
    predicting = batch.mask[row, :-1] & batch.mask[row, 1:]  # [longest − 1]
    targets = batch.input_ids[row, 1:][predicting].to(logits.device)
    predictions = logits[:-1][predicting.to(logits.device)].float()
    return functional.cross_entropy(predictions, targets, reduction="none")


def _name(replacement: Replacement) -> str:
    if isinstance(replacement, str):
        return replacement
    return "mean" if isinstance(replacement, Tensor) else "sae"


def _replace(
    replacement: Replacement, center: bool, normalize: Normalisation | None
) -> Replace | None:
    """The function that replaces the values [n, d] float32; None if they stay."""
    if isinstance(replacement, str):
        return None if replacement == "clean" else torch.zeros_like
    if isinstance(replacement, Tensor):
        return lambda values: normalise(values, normalize).undo(
            replacement.to(values).expand_as(values)
        )

    def replaced(values: Tensor) -> Tensor:
        x = values - values.mean(dim=1, keepdim=True) if center else values
        normalised = normalise(x, normalize)
        new = normalised.undo(replacement(normalised.x))
        return values + (new - x) if center else new

    return replaced


@contextmanager
def _replaced(
    lm: LanguageModel, hook: HookPoint, batch: Batch, replace: Replace | None
) -> Iterator[None]:
    """Inside the block, the model computes with replaced values at the tokens that count."""
    if replace is None:
        yield
        return
    splice = _Splice(hook, batch, replace)
    module = lm.model.get_submodule(hook.module)
    if hook.side == "input":
        handles = [module.register_forward_pre_hook(splice.at_input, with_kwargs=True)]
    else:
        handles = [module.register_forward_hook(splice.at_output)]
    if hook.bypass is not None:
        block = lm.model.get_submodule(hook.bypass)
        handles.append(block.register_forward_hook(splice.at_bypass))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if splice.change is None:
        raise never_ran(hook)


class _Splice:
    """The hooks of one forward pass and the change they made."""

    def __init__(self, hook: HookPoint, batch: Batch, replace: Replace) -> None:
        self.hook = hook
        self.batch = batch
        self.replace = replace
        self.change: Tensor | None = None  # [w, longest, d], new minus old

    def at_input(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        new = self.new(module_input(args, kwargs))
        if args:
            return (new, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": new}

    def at_output(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        return with_first(output, self.new(output))

    def at_bypass(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        """Adds the change to the block's output, where the value also runs past the module."""
        assert self.change is not None
        return with_first(output, first(output) + self.change)

    def new(self, value: Any) -> Tensor:
        """The value, replaced at the tokens that count."""
        old = check_shape(value, self.hook, self.batch)
        mask = self.batch.mask.to(old.device)
        new = old.clone()
        new[mask] = self.replace(old[mask].float()).to(new)
        self.change = new - old
        return new
