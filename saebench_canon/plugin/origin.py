"""Where activations are from, and whether that is what an SAE was trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from saebench_canon.plugin.adapter import Description

STREAM = {"hook_resid_pre": 0, "hook_resid_post": 1}  # blocks before the stream is read
LENS = re.compile(r"blocks\.(\d+)\.(.+)")
BLOCK = re.compile(r"(?:.*\.)?(?:layers|layer|h|blocks)\.(\d+)")  # a block's module: its output
INSIDE = re.compile(r".*?(?:layers|layer|h|blocks)\.(\d+)\.(.+)")  # a module inside a block
SUBLAYERS = {
    "hook_attn_out": "attn", "attn": "attn", "self_attn": "attn", "attention": "attn",
    "hook_mlp_out": "mlp", "mlp": "mlp",
}  # fmt: skip
OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense", "down_proj", "dense_4h_to_h", "wo", "w2")
LAST = 10**6  # the layer of what comes after all blocks
ENDS = {
    "hook_embed": ("stream", 0), "ln_final.hook_normalized": ("ln_final", LAST),
    "ln_final.hook_scale": ("ln_final", LAST), "hook_pos_embed": ("hook_pos_embed", 0),
}  # fmt: skip
ALIASES = {"gpt2-small": "gpt2", "gpt2-xlarge": "gpt2-xl"}  # names of TransformerLens


@dataclass(frozen=True)
class Origin:
    """Where activations are from; None where it is not known."""

    model: str | None = None
    hook: str | None = None
    bos: bool | None = None  # whether each window begins with BOS


def other_origin(sae: Description, origin: Origin) -> Iterator[str]:
    """A sentence on each fact in which an SAE's file contradicts the activations."""
    if sae.hook and origin.hook and different_hooks(sae.hook, origin.hook):
        yield f"trained at {sae.hook}, measured at {origin.hook}"
    if sae.model and origin.model and different_models(sae.model, origin.model):
        yield f"trained on the model {sae.model}, measured on {origin.model}"
    if sae.prepend_bos is not None and origin.bos is not None and sae.prepend_bos != origin.bos:
        trained, measured = ("with" if bos else "without" for bos in (sae.prepend_bos, origin.bos))
        yield f"trained on windows {trained} BOS, measured on windows {measured} it"


def different_hooks(first: str, second: str) -> bool:
    """Whether two names of hooks surely mean different values.

    The names are those of TransformerLens, or module paths. The stream after a block is the stream
    before the next one.
    """
    (kind, layer), (other_kind, other_layer) = _place(first), _place(second)
    if first == second or layer is None or other_layer is None:
        return False
    if kind is None or other_kind is None:  # a value inside a block: its layer alone is known
        return abs(layer - other_layer) > 1 if kind != other_kind else layer != other_layer
    return (kind, layer) != (other_kind, other_layer)


def is_as_wide_as_the_stream(hook: str) -> bool:
    """Whether a hook's value surely has the width of the model's residual stream."""
    return _place(hook)[0] in ("stream", "attn", "mlp", "hook_resid_mid")


def _place(hook: str) -> tuple[str | None, int | None]:
    """What a hook's value is ("stream", "attn", …), and its layer."""
    if hook in ENDS:
        return ENDS[hook]
    if lens := LENS.fullmatch(hook):
        layer, name = int(lens[1]), lens[2]
        if name in STREAM:
            return "stream", layer + STREAM[name]
        if "hook_" in name:
            return SUBLAYERS.get(name, name), layer
    if block := BLOCK.fullmatch(hook):
        return "stream", int(block[1]) + 1
    if inside := INSIDE.fullmatch(hook):
        return _sublayer(inside[2]), int(inside[1])
    return None, None


def _sublayer(path: str) -> str | None:
    """What a module inside a block gives: the output of attention or MLP, a part of it, unknown."""
    head, _, rest = path.partition(".")
    sublayer = SUBLAYERS.get(head)
    if sublayer is None or rest == "" or rest in OUTPUTS:
        return sublayer
    return f"{sublayer}.{rest}"


def different_models(first: str, second: str) -> bool:
    """Whether two names surely mean different models; the owner on the hub does not count.

    A folder may have any name: one that names no model known by its hub's cache differs from none.
    """
    return (
        _model(first) is not None
        and _model(second) is not None
        and (_model(first) != _model(second))
    )


def _model(name: str) -> str | None:
    """A model's name without its owner, in lower case; None of a folder that may hold any."""
    parts = PurePath(name).parts
    cached = next((part for part in parts if part.startswith("models--")), None)
    if cached is not None:
        short = cached.rpartition("--")[2].lower()
    elif name.startswith((".", "/", "~")) or len(parts) > 2:
        return None
    else:
        short = name.rpartition(":")[2].rpartition("/")[2].lower()
    return ALIASES.get(short, short)
