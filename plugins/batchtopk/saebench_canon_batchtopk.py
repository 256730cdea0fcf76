"""Adapter: SAEs of the BatchTopK repository and the published meta-SAE, as batchtopk:PATH."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from saebench_canon import (
    Activation,
    CanonError,
    CheckpointAdapter,
    Description,
    Files,
    Parameters,
    Ref,
    checkpoint,
    hookimpl,
    nearest,
)

KINDS: dict[str, Activation] = {
    "topk": "topk",
    "batchtopk": "batchtopk",
    "vanilla": "relu",
    "jumprelu": "jumprelu",
}
META = "Config.json"  # only the published meta-SAE spells it so
CENTRED = ("gpt2", "pythia")  # models whose writing weights TransformerLens centres
WRITES = re.compile(r"blocks\.\d+\.hook_(resid_(pre|mid|post)|attn_out|mlp_out)")
NAMED = re.compile(r".*_(\d+)_(topk|batchtopk|vanilla|jumprelu)_(\d+)_[^_/]+_\d+")


def _described_by_name(ref: Ref) -> Description:
    """What a checkpoint's name in the repository says: …_WIDTH_TYPE_K_LR_STEP."""
    match = NAMED.fullmatch(ref.target)
    width, kind, k = match.groups() if match else (None, "batchtopk", None)
    return Description(
        d=None,
        width=None if width is None else int(width),
        architecture=kind,
        k=int(k) if k is not None and "topk" in kind else None,
    )


@checkpoint(
    "batchtopk",
    known=_described_by_name,
    files=["sae.pt", "config.json"],
    or_files=["SAE.pt", META],
    calibrates=True,
)
def batchtopk(files: Files) -> Parameters:
    """SAEs of bartbussmann/BatchTopK, and the meta-SAE of Leask et al. 2025."""
    meta = Files(files.folder).find(META) is not None
    config = files.json(META if meta else "config.json")
    w = files.torch("SAE.pt" if meta else "sae.pt")
    where = str(config.path)
    kind = config.get("sae_type", "topk") if meta else config["sae_type"]
    if meta and kind == "topk":  # a default left unchanged: its class is BatchTopKSAE
        kind = "batchtopk"
    if not isinstance(kind, str) or kind not in KINDS:
        raise CanonError(
            f"sae_type {kind!r} is not known", where=where, hint=nearest(str(kind), KINDS)
        )
    selects = kind in ("topk", "batchtopk")
    if selects and config.get("activation", "relu") != "relu":
        raise CanonError(
            f"activation is {config['activation']!r}, whose codes have no canonical form",
            where=where,
        )
    tied = selects and bool(config.get("tied_weights", False))
    biased = not selects or bool(config.get("use_encoder_bias", False))
    # the versions that knew tied_weights normalised for the classes that select only
    normalises = config.get("input_unit_norm", False) and (selects or "tied_weights" not in config)
    w.ignore(*(["W_dec"] if tied else []), *([] if biased else ["b_enc"]))
    parameters = Parameters(
        W_enc=w["W_enc"],
        W_dec=w["W_enc"].T if tied else w["W_dec"],
        b_dec=w["b_dec"],
        b_enc=w["b_enc"] if biased else None,
        activation=KINDS[kind],
        threshold=w["jumprelu.log_threshold"].exp() if kind == "jumprelu" else None,
        k=config["top_k"] if selects else None,
        apply_b_dec_to_input=kind != "jumprelu",
        normalize="layer_norm" if normalises else "none",
        **({"metadata": {"reads": "decoder rows"}} if meta else _hook_and_model(config)),
    )
    for key, size in (("act_size", parameters.d), ("dict_size", parameters.width)):
        if config.get(key, size) != size:
            raise CanonError(f"{key} is {config[key]!r}, but the weights have {size}", where=where)
    return parameters


def _hook_and_model(config: dict[str, Any]) -> dict[str, Any]:
    """The model and hook of the activations, as TransformerLens loads a model by default."""
    names = [config.get(key) for key in ("hook_point", "model_name")]
    hook, model = (name if isinstance(name, str) else None for name in names)
    centred = (model or "").rpartition("/")[2].startswith(CENTRED) and WRITES.fullmatch(hook or "")
    return {
        "hook": hook,
        "model": model,
        "prepend_bos": True,
        "center_writing_weights": True if centred else None,
    }


@hookimpl
def canon_adapters() -> list[CheckpointAdapter]:
    """The adapter of the scheme `batchtopk`."""
    return [batchtopk]


@hookimpl
def canon_claim(path: Path) -> str | None:
    """The ref of a folder of this format, or of a file in it."""
    return batchtopk.claim(path)
