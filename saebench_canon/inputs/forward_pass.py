"""A language model run on a batch of windows, as far as a hook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saebench_canon.data.hook_points import HookPoint, first
from saebench_canon.data.language_model import LanguageModel
from saebench_canon.errors import CanonError
from saebench_canon.inputs.tokens import Batch, Tokens, batches

LEAST_DIFFERENCE = 1e-3  # of the values' spread, that is no rounding


def forward(lm: LanguageModel, batch: Batch) -> Any:
    """The model's output on a batch, with masked padding."""
    position = torch.arange(batch.input_ids.shape[1])
    attention_mask = (position < batch.length[:, None]).long()
    with torch.no_grad():
        return lm.model(
            input_ids=batch.input_ids.to(lm.device),
            attention_mask=attention_mask.to(lm.device),
            use_cache=False,
        )


def check_causal(lm: LanguageModel, tokens: Tokens, hook: HookPoint | None = None) -> None:
    """Raise CanonError if what a model computes for a token depends on later tokens.

    The longest window and its first half must give the same values at the hook for that half, but
    for rounding; without a hook, the same logits. Encoders such as BERT do not.
    """
    window = batches(tokens, 1)[0]
    half = int(window.length) // 2
    if half == 0:
        return
    cut = replace(
        window,
        input_ids=window.input_ids[:, :half],
        length=torch.tensor([half]),
        mask=window.mask[:, :half],
    )
    expected, seen = (
        (forward(lm, batch).logits if hook is None else value_at(lm, hook, batch))[
            0, :half
        ].double()
        for batch in (cut, window)
    )
    spread = torch.linalg.vector_norm(expected - expected.mean(dim=1, keepdim=True))
    tolerance = max(LEAST_DIFFERENCE, 32 * torch.finfo(next(lm.model.parameters()).dtype).eps)
    if float(torch.linalg.vector_norm(seen - expected)) > tolerance * float(spread):
        raise CanonError(
            f"the model is not causal: its values for the first {half} tokens depend on later ones",
            where=lm.name,
            hint="Encoders such as BERT cannot be measured.",
        )


def value_at(lm: LanguageModel, hook: HookPoint, batch: Batch) -> Tensor:
    """The value at the hook [w, longest, d]."""
    try:
        with _stopping_at(lm, hook):
            forward(lm, batch)
    except _Reached as reached:
        return check_shape(reached.value, hook, batch)
    raise never_ran(hook)


def check_shape(value: Any, hook: HookPoint, batch: Batch) -> Tensor:
    """The value at a hook: one vector for each position of each window."""
    tensor = first(value)
    expected = tuple(batch.input_ids.shape)
    if not isinstance(tensor, Tensor) or tensor.ndim != 3 or tuple(tensor.shape[:2]) != expected:
        shape = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise CanonError(
            f"the {hook.side} of {hook.module} is {shape}, not one vector for each token",
            where=hook.name,
            hint="Hook a block, its attention or its MLP.",
        )
    return tensor


def module_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument of a module, positional or by name."""
    return args[0] if args else kwargs.get("hidden_states")


def never_ran(hook: HookPoint) -> CanonError:
    """The error for a module that the forward pass does not call."""
    return CanonError(
        f"the model never calls {hook.module} by itself, so it has no value there",
        where=hook.name,
        hint="Hook a block, its attention or its MLP.",
    )


class _Reached(Exception):
    """Carries the value out of a forward pass that can stop."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


@contextmanager
def _stopping_at(lm: LanguageModel, hook: HookPoint) -> Iterator[None]:
    def at_input(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Reached(module_input(args, kwargs))

    def at_output(module: Any, args: tuple[Any, ...], output: Any) -> None:
        raise _Reached(output)

    module = lm.model.get_submodule(hook.module)
    if hook.side == "input":
        handle = module.register_forward_pre_hook(at_input, with_kwargs=True)
    else:
        handle = module.register_forward_hook(at_output)
    try:
        yield
    finally:
        handle.remove()
