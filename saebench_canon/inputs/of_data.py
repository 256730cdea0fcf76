"""The inputs of a data source: model, tokens, activations, and which documents are held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
from saebench_canon.inputs.holdout import held_out, twins_of_acts
from saebench_canon.plugin.data import DataSpec, Gives
from saebench_canon.plugin.input import made

if TYPE_CHECKING:
    from torch import Tensor

    from saebench_canon.data.hook_points import HookPoint
    from saebench_canon.data.language_model import LanguageModel
    from saebench_canon.inputs.of_world import Drawn
    from saebench_canon.inputs.sinks import Sinks
    from saebench_canon.inputs.tokens import Tokens
    from saebench_canon.plugin.activations import Acts


def gives(*kinds: Gives) -> Callable[[DataSpec], bool]:
    """Whether a data source gives all of these."""
    return lambda data: data.gives(*kinds)


def _save_tokens(tokens: Tokens, folder: Path) -> None:
    import json

    from safetensors.torch import save_file

    tensors = {"input_ids": tokens.input_ids, "length": tokens.length, "doc": tokens.doc}
    tensors |= {} if tokens.counted is None else {"counted": tokens.counted}
    save_file(tensors, folder / "tokens.safetensors")
    fields = {
        "documents": tokens.documents, "bos": tokens.bos, "names": tokens.names,
        "special": tokens.special, "twins": tokens.twins,
    }  # fmt: skip
    (folder / "tokens.json").write_text(json.dumps(fields), encoding="utf-8")


def _load_tokens(folder: Path) -> Tokens:
    import json

    from safetensors.torch import load_file

    from saebench_canon.inputs.tokens import Tokens

    fields = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    fields |= {name: tuple(fields[name]) for name in ("names", "twins")}
    fields["special"] = tuple(map(tuple, fields["special"]))
    return Tokens(**load_file(folder / "tokens.safetensors"), **fields)


def _save_acts(acts: Acts, folder: Path) -> None:
    from saebench_canon.inputs.mapped import save_acts

    save_acts(acts, folder)


def _load_acts(folder: Path) -> Acts:
    from saebench_canon.inputs.mapped import load_acts

    return load_acts(folder)


def _save_names(names: tuple[str, ...], folder: Path) -> None:
    import json

    (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")


def _load_names(folder: Path) -> tuple[str, ...]:
    import json

    return tuple(json.loads((folder / "names.json").read_text(encoding="utf-8")))


def _save_sinks(sinks: Sinks, folder: Path) -> None:
    from saebench_canon.inputs.sinks import save_sinks

    save_sinks(sinks, folder)


def _load_sinks(folder: Path) -> Sinks:
    from saebench_canon.inputs.sinks import load_sinks

    return load_sinks(folder)


@made(per="data", version=1, available=gives("lm"))
def lm(data: DataSpec, device: str) -> LanguageModel:
    """The language model of the data, in eval mode, and its tokenizer."""
    language_model: LanguageModel = data.lm_source.language_model(data, device)
    return language_model


@made(per="data", version=1, available=gives("lm"), save=_save_names, load=_load_names)
def surplus(lm: LanguageModel) -> tuple[str, ...]:
    """The tensors in the model's files that it does not use."""
    return lm.surplus


@made(per="data", version=2, available=gives("tokens"), save=_save_tokens, load=_load_tokens)
def all_tokens(data: DataSpec, lm: LanguageModel) -> Tokens:
    """Windows of all documents, those of the held-out documents first."""
    import torch

    from saebench_canon.inputs.tokens import tokenize

    source = data.lm_source
    documents = source.documents(data)
    tokens = tokenize(
        documents,
        lm,
        context=source.context,
        limit=data.tokens,
        with_bos=source.bos,
        skip=source.skip,
    )
    scored = torch.tensor(held_out(data, tokens.twins))[tokens.doc]
    return tokens.at(torch.argsort(~scored, stable=True))


@made(per="data", version=1, available=gives("tokens"))
def tokens(data: DataSpec, all_tokens: Tokens) -> Tokens:
    """Windows of the documents that scores use."""
    import torch

    return all_tokens.of(torch.tensor(held_out(data, all_tokens.twins)))


@made(per="data", version=1, available=gives("tokens"))
def positions(tokens: Tokens) -> Tensor:
    """The position in its window of each token that scores use."""
    return tokens.positions


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
def all_acts(data: DataSpec, extracted: Acts | None = None, drawn: Drawn | None = None) -> Acts:
    """Activations of all documents, those of the held-out ones first."""
    if drawn is not None:
        return drawn.acts
    return extracted if extracted is not None else _acts_of_source(data)


@made(per="data", version=1, available=lambda data: data.gives("acts") and data.holdout is not None)
def twins(data: DataSpec, all_acts: Acts, all_tokens: Tokens | None = None) -> Sequence[int]:
    """Of each document the first with the same content: both are on one side of the holdout."""
    return twins_of_acts(all_acts) if all_tokens is None else all_tokens.twins


@made(per="data", version=1, available=gives("acts"))
def acts(data: DataSpec, all_acts: Acts, twins: Sequence[int] | None = None) -> Acts:
    """The activations that scores use: those of the held-out documents, if any are, else all."""
    return all_acts if twins is None else _part(data, all_acts, twins, scored=True)


@made(per="data", version=2, available=gives("acts"), save=_save_sinks, load=_load_sinks)
def sinks(acts: Acts, positions: Tensor | None = None) -> Sinks:
    """The tokens that scores use whose norms are far above those of others."""
    from saebench_canon.inputs.sinks import find_sinks

    return find_sinks(acts.x, positions)


@made(per="data", version=1, available=gives("acts"))
def train_acts(data: DataSpec, all_acts: Acts, twins: Sequence[int] | None = None) -> Acts:
    """The activations that SAEs are trained on: fresh ones, or of documents not held out."""
    if data.fresh is not None:
        return all_acts
    if twins is None:
        raise CanonError("nothing is held out, so nothing is left to train on", where=data.where)
    return _part(data, all_acts, twins, scored=False)


def windows(data: DataSpec, batch_size: int) -> int:
    """The number of windows of the data's context in a batch of `batch_size` tokens."""
    return max(1, batch_size // data.lm_source.context)


def _part(data: DataSpec, acts: Acts, twins: Sequence[int], *, scored: bool) -> Acts:
    import torch

    from saebench_canon.plugin.activations import Acts

    _, doc = torch.unique(acts.doc, return_inverse=True)
    mask = torch.tensor(held_out(data, twins))[doc]
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
