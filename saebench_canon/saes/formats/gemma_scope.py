"""The scheme `gemma-scope`: JumpReLU SAEs of Gemma 2 (`params.npz`) and of Gemma 3 (Gemma Scope 2).

The files hold weights only. Model, hook and scale come from the names of repository and folders,
`gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82`, and are unknown for a file that has been
moved out of them.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.ref import Ref
from saebench_canon.saes.checkpoint import Parameters, checkpoint
from saebench_canon.saes.files import Files
from saebench_canon.saes.weights.lazy_tensor import Tensors

FIRST = "params.npz"
SECOND, CONFIG = "params.safetensors", "config.json"
TRANSCODER = "it is a transcoder, which reconstructs other activations than it reads"

# widths of activations by model and site: attention output is as wide as all heads together
STREAM = {
    "gemma-2-2b": 2304, "gemma-2-9b": 3584, "gemma-2-27b": 4608,
    "gemma-3-270m": 640, "gemma-3-1b": 1152, "gemma-3-4b": 2560, "gemma-3-12b": 3840,
    "gemma-3-27b": 5376,
}  # fmt: skip
HEADS = {
    "gemma-2-2b": 2048, "gemma-2-9b": 4096, "gemma-3-270m": 1024, "gemma-3-1b": 1024,
    "gemma-3-4b": 2048, "gemma-3-12b": 4096, "gemma-3-27b": 4096,
}  # fmt: skip
HOOKS = {"res": "hook_resid_post", "att": "attn.hook_z", "mlp": "hook_mlp_out"}
WIDTHS = {
    "1k": 2**10, "4k": 2**12, "16k": 2**14, "32k": 2**15, "65k": 2**16, "131k": 2**17,
    "262k": 2**18, "524k": 2**19, "1m": 2**20,
}  # fmt: skip
_FIRST = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|att|mlp|transcoders)(?![\w-])")
_SECOND = re.compile(r"gemma-scope-2-(270m|1b|4b|12b|27b)-(pt|it)(?![\w-])")
_SITES = {"resid_post": "res", "attn_out": "att", "mlp_out": "mlp"}
_FOLDER = re.compile(r"(?:layer_(\d+)|embedding)/width_(\w+)/average_l0_(\d+)$")
_FOLDER_2 = re.compile(r"(\w+)/layer_(\d+)_width_([0-9]+[km])\w*$")


class PathFacts(NamedTuple):
    """What the names of repository and folders say about an SAE; None where they say nothing."""

    size: str | None = None  # the model without its variant
    model: str | None = None
    site: str | None = None  # a key of HOOKS
    layer: int | None = None
    width: int | None = None
    l0: int | None = None
    embedding: bool = False
    transcoder: bool = False

    @property
    def hook(self) -> str | None:
        """Where in the model the activations are."""
        if self.embedding:  # what enters the first block is the embedding, times √d
            return "blocks.0.hook_resid_pre"
        if self.layer is None or self.site is None:
            return None
        return f"blocks.{self.layer}.{HOOKS[self.site]}"

    @property
    def d(self) -> int | None:
        """The width of the activations."""
        return (HEADS if self.site == "att" else STREAM).get(self.size or "")

    @property
    def metadata(self) -> dict[str, int]:
        """The average L0, if the names say it."""
        return {} if self.l0 is None else {"average_l0": self.l0}


def path_facts(path: str) -> PathFacts:
    """What the names in a path on the hub or on disk say."""
    path = path.removesuffix(f"/{FIRST}").removesuffix(f"/{SECOND}").rstrip("/")
    if second := _SECOND.search(path):
        return _second_facts(path, second[1], second[2])
    facts, first = PathFacts(), _FIRST.search(path)
    if first:
        size, variant, site = first.groups()
        facts = facts._replace(
            size=f"gemma-2-{size}",
            model=f"google/gemma-2-{size}" + ("-it" if variant == "it" else ""),
            site=site if site in HOOKS else None,
            transcoder=site == "transcoders",
        )
    if folder := _FOLDER.search(path):
        facts = facts._replace(
            layer=int(folder[1]) if folder[1] else None,
            width=WIDTHS.get(folder[2]),
            l0=int(folder[3]),
            embedding=folder[1] is None,
        )
    return facts


def _second_facts(path: str, size: str, variant: str) -> PathFacts:
    """What the names of Gemma Scope 2 say."""
    folder = _FOLDER_2.search(path)
    kind = folder[1].removesuffix("_all") if folder else ""
    suffix = "" if (size, variant) == ("270m", "pt") else f"-{variant}"
    return PathFacts(
        size=f"gemma-3-{size}",
        model=f"google/gemma-3-{size}{suffix}",
        site=_SITES.get(kind),
        layer=int(folder[2]) if folder else None,
        width=WIDTHS.get(folder[3]) if folder else None,
        transcoder="transcoder" in kind or "clt" in kind,
    )


def known(ref: Ref) -> Description:
    """What a hub ref's names say about an SAE that is not on this machine."""
    facts = path_facts(ref.target)
    if facts.transcoder:
        raise CanonError(TRANSCODER, where=str(ref))
    return Description(
        d=facts.d,
        width=facts.width,
        architecture="jumprelu",
        hook=facts.hook,
        model=facts.model,
        prepend_bos=True,
        dtype="float32",
        metadata=facts.metadata,
    )


@checkpoint("gemma-scope", files=[FIRST], or_files=[SECOND], optional=[CONFIG], known=known)
def GEMMA_SCOPE(files: Files) -> Parameters:  # noqa: N802  what the decorator makes is a constant
    """Gemma Scope and Gemma Scope 2: JumpReLU; the input keeps the decoder bias."""
    facts = path_facts(Path(files.path).resolve().as_posix())
    if facts.transcoder:
        raise CanonError(TRANSCODER, where=str(files.path))
    if files.find(FIRST) is None:
        return _parameters(_second(files), facts, "w_enc", "w_dec")
    return _parameters(files.npz(FIRST), facts, "W_enc", "W_dec")


def _second(files: Files) -> Tensors:
    """The tensors of Gemma Scope 2, unless they are a transcoder's."""
    w = files.safetensors(SECOND)
    config = files.json(CONFIG) if files.has(CONFIG) else {}
    architecture = config.get("architecture", "jump_relu")
    if architecture != "jump_relu":
        raise CanonError(
            f"architecture is {architecture!r}, not 'jump_relu'", where=str(files.folder / CONFIG)
        )
    if "affine_skip_connection" in w or config.get("hf_hook_point_out"):
        raise CanonError(TRANSCODER, where=str(w.path))
    encoder, decoder = w["w_enc"], w["w_dec"]
    if len(encoder.shape) == len(decoder.shape) == 2 and encoder.shape[0] != decoder.shape[1]:
        raise CanonError(
            f"the SAE reads {encoder.shape[0]} dimensions and writes {decoder.shape[1]}: "
            f"{TRANSCODER}",
            where=str(w.path),
        )
    return w


def _parameters(w: Tensors, facts: PathFacts, enc: str, dec: str) -> Parameters:
    """What an SAE computes with these tensors."""
    decoder = w[dec]
    # embeddings were taken before the model multiplies them by √d
    scale = 1 / math.sqrt(decoder.shape[-1]) if facts.embedding and all(decoder.shape) else 1.0
    return Parameters(
        W_enc=w[enc],
        W_dec=decoder,
        b_dec=w["b_dec"],
        b_enc=w["b_enc"],
        activation="jumprelu",
        threshold=w["threshold"],
        input_scale=scale,
        hook=facts.hook,
        model=facts.model,
        prepend_bos=True,
        metadata=facts.metadata,
    )
