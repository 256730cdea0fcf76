"""Where in a model a value is read or replaced: TransformerLens names and module paths."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from saebench_canon.errors import CanonError, nearest

if TYPE_CHECKING:
    from torch import Tensor

# the residual stream and what is added to it
KINDS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
HEADS = "attn.hook_z"
KNOWN = (*KINDS, HEADS)
NAME = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class HookPoint:
    """A value of the model: the input or the output of one of its modules.

    Of a tuple it is the first element. `bypass` names the block around a value that also runs past
    the module (the residual stream halfway through a block): code that replaces the value adds
    the change to that block's output. `writes`: the value is the residual stream, or is added to
    it unchanged.
    """

    name: str  # as the suite has it
    module: str
    side: Literal["input", "output"]
    bypass: str | None = None
    writes: bool = False


@dataclass(frozen=True)
class Layout:
    """Where a family of models keeps the parts of a block."""

    blocks: tuple[str, ...]  # module lists, the first that the model has
    attn: str  # the module whose output is added to the stream
    mlp: str
    mid: str  # the module whose input is the stream between attention and MLP
    heads: str = "self_attn.o_proj"  # the module whose input is the output of the heads
    norm: Literal["LayerNorm", "RMSNorm"] = "RMSNorm"


_LAYERS = ("model.layers", "model.language_model.layers", "language_model.model.layers")
_LLAMA = Layout(_LAYERS, "self_attn", "mlp", "post_attention_layernorm")
_GEMMA2 = Layout(  # both sublayers end in a norm of their own before they are added
    _LAYERS, "post_attention_layernorm", "post_feedforward_layernorm", "pre_feedforward_layernorm"
)
_NEOX = Layout(
    ("gpt_neox.layers",), "attention", "mlp", "post_attention_layernorm", "attention.dense",
    "LayerNorm",
)  # fmt: skip
LAYOUTS = {
    "gpt2": Layout(("transformer.h",), "attn", "mlp", "ln_2", "attn.c_proj", "LayerNorm"),
    "gpt_neox": _NEOX,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA2,
    "gemma3_text": _GEMMA2,
}


def resolve_hook(model: Any, name: str) -> HookPoint:
    """The hook point that a name means in a model of `transformers`.

    `blocks.L.hook_resid_pre|hook_resid_mid|hook_resid_post|hook_attn_out|hook_mlp_out` mean what
    they mean in TransformerLens (for Gemma 2 and 3 the sublayers' outputs are those after their
    own norms), and so does `blocks.L.attn.hook_z`, the heads' output before it is projected into
    the stream, but flattened to [heads · d_head], as its SAEs read it. Any other name is a
    module of the model itself, and the value is its output.
    """
    if name.startswith("blocks."):
        return _lens_hook(model, name)
    modules = {path for path, _ in model.named_modules() if path}
    inner = f"{getattr(model, 'base_model_prefix', '')}.{name}"
    if name not in modules and inner in modules:  # the name in libraries that hook the inner model
        name = inner
    if name not in modules:
        raise CanonError(
            f"the model has no module {name!r}",
            where=_kind(model),
            hint=_nearest_module(name, modules),
        )
    return HookPoint(name, name, "output", writes=name in _stream_modules(model))


def centring_refused(model: Any, hook: HookPoint) -> str | None:
    """Why subtracting each value's mean over the dimensions changes the model; None if it does not.

    Every reader of the residual stream of a LayerNorm model subtracts that mean first, so a
    stream without it gives the same model: what TransformerLens calls centred writing weights.
    """
    layout = LAYOUTS.get(_kind(model))
    if layout is None:
        return f"it is not known whether {_kind(model)} models read the stream through LayerNorm"
    if layout.norm != "LayerNorm":
        return f"{_kind(model)} models read the stream through RMSNorm, which keeps the mean"
    if not hook.writes:
        return f"{hook.name} is not the residual stream nor added to it"
    return None


def first(value: Any) -> Tensor:
    """The tensor of a module's input or output, which may be a tuple."""
    tensor: Tensor = value[0] if isinstance(value, tuple) else value
    return tensor


def with_first(value: Any, tensor: Tensor) -> Any:
    """The same input or output with another tensor in it."""
    return (tensor, *value[1:]) if isinstance(value, tuple) else tensor


def _lens_hook(model: Any, name: str) -> HookPoint:
    layout, blocks = _layout(model, name)
    count = len(model.get_submodule(blocks))
    parts = NAME.fullmatch(name)
    if parts is None:
        raise CanonError(f"the hook {name!r} is not of the form blocks.LAYER.HOOK", hint=_kinds())
    layer, kind = int(parts[1]), parts[2]
    if layer >= count:
        raise CanonError(
            f"the hook {name!r} is on layer {layer}, and the layers are 0 to {count - 1}",
            where=_kind(model),
        )
    if kind not in KNOWN:
        raise CanonError(
            f"unknown TransformerLens hook {kind!r}",
            where=name,
            hint=f"{nearest(kind, KNOWN)} Name the output of any other module by its path, such as "
            f"{blocks}.{layer}.{layout.mlp}.",
        )
    block = f"{blocks}.{layer}"
    if kind == "hook_resid_pre":
        return HookPoint(name, block, "input", writes=True)
    if kind == "hook_resid_post":
        return HookPoint(name, block, "output", writes=True)
    if kind == "hook_attn_out":
        return HookPoint(name, f"{block}.{layout.attn}", "output", writes=True)
    if kind == "hook_mlp_out":
        return HookPoint(name, f"{block}.{layout.mlp}", "output", writes=True)
    if kind == HEADS:
        return HookPoint(name, f"{block}.{layout.heads}", "input")
    if getattr(model.config, "use_parallel_residual", False):
        raise CanonError(
            "this model has no residual stream between attention and MLP: both read the block's "
            "input (parallel residual)",
            where=name,
            hint=f"Use blocks.{layer}.hook_resid_pre or blocks.{layer}.hook_resid_post.",
        )
    return HookPoint(name, f"{block}.{layout.mid}", "input", bypass=block, writes=True)


def _layout(model: Any, name: str) -> tuple[Layout, str]:
    """The family's layout and the path of the model's list of blocks."""
    layout = LAYOUTS.get(_kind(model))
    if layout is None:
        raise CanonError(
            f"TransformerLens names are not known for {_kind(model)} models",
            where=name,
            hint=f"Give a module path; the names are known for {', '.join(sorted(LAYOUTS))}.",
        )
    modules = {path for path, _ in model.named_modules()}
    for blocks in layout.blocks:
        if blocks in modules:
            return layout, blocks
    raise CanonError(
        f"the model has no list of blocks at {' or '.join(layout.blocks)}",
        where=name,
        hint="Give a module path.",
    )


def _stream_modules(model: Any) -> set[str]:
    """Modules whose output is the residual stream or is added to it."""
    layout = LAYOUTS.get(_kind(model))
    if layout is None:
        return set()
    _, blocks = _layout(model, "")
    names = (f"{blocks}.{layer}" for layer in range(len(model.get_submodule(blocks))))
    return {
        path
        for block in names
        for path in (block, f"{block}.{layout.attn}", f"{block}.{layout.mlp}")
    }


def _kind(model: Any) -> str:
    return str(getattr(model.config, "model_type", type(model).__name__))


def _kinds() -> str:
    return f"The hooks are {', '.join(KNOWN)}."


def _nearest_module(name: str, modules: Iterable[str]) -> str:
    """The names nearest to a path; if none is near, all names, numbered blocks as one."""
    hint = nearest(name, modules)
    if hint.startswith("Did you mean"):
        return hint
    tops = sorted({re.sub(r"\.\d+(\..*)?$", ".N", path) for path in modules})
    return f"Its modules are {', '.join(tops[:8])} …, or give blocks.LAYER.hook_resid_post."
