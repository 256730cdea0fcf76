"""The inputs of a data source: model, tokens, activations, and which documents are held out."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
from saebench_canon.plugin.data import SPLIT_SEED, DataSpec, Gives
from saebench_canon.plugin.input import made

if TYPE_CHECKING:
    from saebench_canon.data.hook_points import HookPoint
    from saebench_canon.data.language_model import LanguageModel
    from saebench_canon.inputs.tokens import Tokens
    from saebench_canon.plugin.activations import Acts


def gives(*kinds: Gives) -> Callable[[DataSpec], bool]:
    """Whether a data source gives all of these."""
    return lambda data: data.gives(*kinds)


def _save_tokens(tokens: Tokens, folder: Path) -> None:
    import json

    from safetensors.torch import save_file

    tensors = {"input_ids": tokens.input_ids, "length": tokens.length, "doc": tokens.doc}
    save_file(tensors, folder / "tokens.safetensors")
    fields = {"documents": tokens.documents, "bos": tokens.bos, "names": tokens.names}
    (folder / "tokens.json").write_text(json.dumps(fields), encoding="utf-8")


def _load_tokens(folder: Path) -> Tokens:
    import json

    from safetensors.torch import load_file

    from saebench_canon.inputs.tokens import Tokens

    fields = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    fields["names"] = tuple(fields["names"])
    return Tokens(**load_file(folder / "tokens.safetensors"), **fields)


def _save_acts(acts: Acts, folder: Path) -> None:
    """Save activations, unless they are already mapped from the folder."""
    import numpy as np
    import torch

    file = folder / "acts.npy"
    if not file.exists():
        np.save(file, acts.x.numpy())
    torch.save(acts.doc, folder / "doc.pt")


def _load_acts(folder: Path) -> Acts:
    import torch

    from saebench_canon.inputs.extraction import open_activations
    from saebench_canon.plugin.activations import Acts

    doc = torch.load(folder / "doc.pt", weights_only=True)
    return Acts(open_activations(folder / "acts.npy"), doc)


@made(per="data", version=1, available=gives("lm"))
def lm(data: DataSpec, device: str) -> LanguageModel:
    """The language model of the data, in eval mode, and its tokenizer."""
    language_model: LanguageModel = data.lm_source.language_model(data, device)
    return language_model


@made(per="data", version=1, available=gives("tokens"), save=_save_tokens, load=_load_tokens)
def all_tokens(data: DataSpec, lm: LanguageModel) -> Tokens:
    """Windows of all documents, those of the held-out documents first."""
    from dataclasses import replace

    import torch

    from saebench_canon.inputs.tokens import tokenize

    source = data.lm_source
    documents = source.documents(data)
    tokens = tokenize(documents, lm, context=source.context, limit=data.tokens, with_bos=source.bos)
    scored = torch.tensor(held_out(data, tokens.documents))[tokens.doc]
    order = torch.argsort(~scored, stable=True)
    return replace(
        tokens,
        input_ids=tokens.input_ids[order],
        length=tokens.length[order],
        doc=tokens.doc[order],
    )


@made(per="data", version=1, available=gives("tokens"))
def tokens(data: DataSpec, all_tokens: Tokens) -> Tokens:
    """Windows of the documents that scores use."""
    import torch

    return all_tokens.of(torch.tensor(held_out(data, all_tokens.documents)))


@made(per="data", version=1, available=gives("lm"))
def hook(data: DataSpec, lm: LanguageModel) -> HookPoint:
    """Where in the model the activations are."""
    from saebench_canon.data.hook_points import resolve_hook

    return resolve_hook(lm.model, data.lm_source.hook)


@made(per="data", version=1, available=gives("tokens", "lm"), save=_save_acts, load=_load_acts)
def extracted(
    data: DataSpec,
    lm: LanguageModel,
    all_tokens: Tokens,
    hook: HookPoint,
    folder: Path,
    batch_size: int,
) -> Acts:
    """Activations of all documents, computed by the model once."""
    from saebench_canon.inputs.extraction import extract

    return extract(
        lm,
        all_tokens,
        hook,
        center=bool(data.center),
        normalize=data.normalize,
        out=folder / "acts.npy",
        batch_size=windows(data, batch_size),
    )


@made(per="data", version=1, available=gives("acts"))
def all_acts(data: DataSpec, extracted: Acts | None = None) -> Acts:
    """Activations of all documents, those of the held-out ones first."""
    return extracted if extracted is not None else _acts_of_source(data)


@made(per="data", version=1, available=gives("acts"))
def acts(data: DataSpec, all_acts: Acts) -> Acts:
    """The activations that scores use: those of the held-out documents, if any are, else all."""
    return _part(data, all_acts, scored=True)


@made(per="data", version=1, available=gives("acts"))
def train_acts(data: DataSpec, all_acts: Acts) -> Acts:
    """The activations that SAEs are trained on: of the documents that are not held out."""
    return _part(data, all_acts, scored=False)


def windows(data: DataSpec, batch_size: int) -> int:
    """The number of windows of the data's context in a batch of `batch_size` tokens."""
    return max(1, batch_size // data.lm_source.context)


def held_out(data: DataSpec, documents: int) -> list[bool]:
    """Which documents are held out for scoring; all of them if the table has no `holdout`."""
    if data.holdout is None:
        return [True] * documents
    count = round(data.holdout * documents)
    if not 0 < count < documents:
        raise CanonError(
            f"holdout = {data.holdout} of {documents} documents leaves one part empty",
            where=data.where, hint="Use more documents or another share.",
        )  # fmt: skip
    chosen = set(random.Random(SPLIT_SEED).sample(range(documents), count))
    return [index in chosen for index in range(documents)]


def _part(data: DataSpec, acts: Acts, *, scored: bool) -> Acts:
    import torch

    from saebench_canon.plugin.activations import Acts

    if data.holdout is None and scored:
        return acts
    documents, doc = torch.unique(acts.doc, return_inverse=True)
    mask = torch.tensor(held_out(data, len(documents)))[doc]
    count = int(mask.sum())
    if bool(mask[:count].all()):  # held-out documents come first: a slice, not a copy
        rows: Any = slice(0, count) if scored else slice(count, None)
    else:
        rows = mask if scored else ~mask
    return Acts(acts.x[rows], acts.doc[rows])


def _acts_of_source(data: DataSpec) -> Acts:
    """The source's activations, cut to `tokens` and normalised."""
    import torch

    from saebench_canon.inputs.normalise import normalise
    from saebench_canon.plugin.activations import Acts

    source = data.source.acts(data)
    x, doc = source.x, source.doc
    if x.ndim != 2 or not x.is_floating_point() or len(x) == 0 or doc.shape != (len(x),):
        raise CanonError(
            f"{data.source} gives activations {list(x.shape)} with documents {list(doc.shape)}",
            where=data.where, hint="They must be [n, d] floats and [n] whole numbers.",
        )  # fmt: skip
    if data.tokens is not None:
        x, doc = x[: data.tokens], doc[: data.tokens]
    for start in range(0, len(x), 65_536):
        finite = torch.isfinite(x[start : start + 65_536]).all(dim=1)
        if not bool(finite.all()):
            token = start + int((~finite).nonzero()[0])
            raise CanonError(
                f"the activation of token {token} of {data.source} is not finite", where=data.where
            )
    return Acts(normalise(x.float(), data.normalize).x, doc.long())
