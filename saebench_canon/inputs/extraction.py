"""Activations of a language model: documents to windows of tokens, windows to vectors.

Which tokens count, here and in `splice`: a window is the BOS token, if the tokenizer has one, and
up to context − 1 tokens of one document. The BOS position and the padding never count, neither as
an activation nor in a loss.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saebench_canon.data.hooks import HookPoint, centring_refused, first
from saebench_canon.data.language_model import LanguageModel
from saebench_canon.data.text import Document
from saebench_canon.errors import CanonError
from saebench_canon.inputs.normalise import normalise
from saebench_canon.plugin.acts import Acts
from saebench_canon.plugin.adapter import Normalisation
from saebench_canon.progress import track
from saebench_canon.saes.memory import size as in_units

PADDING = 0  # any token will do: a causal model's tokens do not see what is to their right


@dataclass(frozen=True, eq=False)
class Tokens:
    """Windows of tokens, in document order; all tokens but BOS and padding count."""

    input_ids: Tensor  # [W, context] int64, padded on the right
    length: Tensor  # [W] int64, tokens of each window, BOS included
    doc: Tensor  # [W] int64, each window's document, 0 … documents − 1
    documents: int
    bos: bool  # whether every window starts with BOS
    names: tuple[str, ...] = ()  # of the documents

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    @property
    def context(self) -> int:
        """The number of tokens of a full window."""
        return int(self.input_ids.shape[1])

    @property
    def counts(self) -> Tensor:
        """How many tokens of each window count, [W] int64."""
        return self.length - int(self.bos)

    @property
    def token_doc(self) -> Tensor:
        """The document of every token that counts, in order, [n] int64."""
        return torch.repeat_interleave(self.doc, self.counts)

    @property
    def mask(self) -> Tensor:
        """Which positions hold a token that counts, [W, context] bool."""
        return counted_mask(self.length, self.context, self.bos)

    def of(self, documents: Tensor) -> Tokens:
        """The windows of the documents where the mask [documents] is true; numbering unchanged."""
        chosen = documents[self.doc]
        return replace(
            self,
            input_ids=self.input_ids[chosen],
            length=self.length[chosen],
            doc=self.doc[chosen],
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Some windows of about equal length, cut to the longest of them."""

    windows: Tensor  # [w] indices into the windows of the tokens
    input_ids: Tensor  # [w, longest]
    length: Tensor  # [w]
    mask: Tensor  # [w, longest] bool, tokens that count


def counted_mask(length: Tensor, context: int, bos: bool) -> Tensor:
    """Which positions of windows [W] hold a token that counts, [W, context] bool."""
    position = torch.arange(context, device=length.device)
    return (position >= int(bos)) & (position < length[:, None])


def tokenize(
    documents: Iterable[Document],
    lm: LanguageModel,
    *,
    context: int,
    limit: int | None = None,
    shortest: int = 2,
) -> Tokens:
    """Windows of at most `context` tokens, documents in the given order and never mixed.

    A window of fewer than `shortest` tokens besides its BOS is dropped (one token alone has nothing
    to predict). With a `limit`, reading stops as soon as so many tokens count, and the last window
    is cut so that exactly `limit` do; fewer do if the text ends before.

    Raises:
        CanonError: the context or the tokenizer does not suit the model, or the text does not fill
            one window.
    """
    bos = lm.bos
    head = [] if bos is None else [bos]
    room = context - len(head)
    _check_context(context, len(head) + shortest, lm, limit)
    rows: list[list[int]] = []
    docs: list[int] = []
    names: list[str] = []
    count = read = 0
    for document in documents:
        ids = lm.tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
        read += len(ids)
        pieces = [ids[start : start + room] for start in range(0, len(ids), room)]
        pieces = [piece for piece in pieces if len(piece) >= shortest]
        if not pieces:
            continue
        for piece in pieces:
            if limit is not None:
                piece = piece[: limit - count]
            if piece:
                rows.append(head + piece)
                docs.append(len(names))
                count += len(piece)
        names.append(document.name)
        if count == limit:
            break
    else:
        if read < room or not rows:
            raise CanonError(
                f"the text has {read} tokens, too few for one context of {context}",
                hint="Use a longer text or a smaller `context`.",
            )
    _check_vocabulary(max(map(max, rows)), lm)
    length = torch.tensor([len(row) for row in rows])
    input_ids = torch.full((len(rows), context), PADDING)
    for window, row in zip(input_ids, rows, strict=True):
        window[: len(row)] = torch.tensor(row)
    return Tokens(input_ids, length, torch.tensor(docs), len(names), bos is not None, tuple(names))


def extract(
    lm: LanguageModel,
    tokens: Tokens,
    hook: HookPoint,
    *,
    batch_size: int = 16,
    center: bool = False,
    normalize: Normalisation | None = None,
    out: Path | None = None,
) -> Acts:
    """The value at the hook for every token that counts, in order; later layers are not computed.

    `center` subtracts each vector's mean over its d entries: `x − (x·1/d) 1`. That equals centring
    everything that is written to the residual stream, and a LayerNorm model computes the same from
    it, since every LayerNorm begins by subtracting this mean. Dictionaries trained on
    TransformerLens's folded models expect it.

    `normalize` is then applied to each vector, as its SAEs expect it.

    With `out`, a .npy file of this name is written and the result is mapped from it.

    Raises:
        CanonError: centring would change the model, the module does not give [batch, position, d],
            or an activation is not finite.
    """
    check_centring(lm, hook, center)
    counts = tokens.counts
    starts = torch.cumsum(counts, 0) - counts  # the first row of each window
    rows = int(counts.sum())
    x: Any = None
    parts = batches(tokens, batch_size)
    for batch in track(parts, f"activations at {hook.name}", len(parts)):
        value = _value_at(lm, hook, batch)
        vectors = value[batch.mask.to(value.device)].float()  # [tokens of the batch that count, d]
        if center:
            vectors = vectors - vectors.mean(dim=1, keepdim=True)
        vectors = normalise(vectors, normalize).x.cpu()
        if not bool(torch.isfinite(vectors).all()):
            raise _not_finite(vectors, batch, tokens, hook, lm)
        if x is None:
            x = _empty(out, (rows, vectors.shape[1]))
        sizes = counts[batch.windows].tolist()
        for start, part in zip(
            starts[batch.windows].tolist(), torch.split(vectors, sizes), strict=True
        ):
            x[start : start + len(part)] = part.numpy()
    if out is None:
        return Acts(torch.from_numpy(x), tokens.token_doc)
    x.flush()
    return Acts(open_activations(out), tokens.token_doc)


def open_activations(path: Path) -> Tensor:
    """Activations [n, d] mapped from a .npy file; writing to them does not change the file."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def batches(tokens: Tokens, size: int) -> list[Batch]:
    """All windows, longest first and then in order, so that few positions are padding."""
    if size < 1:
        raise CanonError(f"batch_size must be at least 1, got {size}")
    order = torch.argsort(tokens.length, descending=True, stable=True)
    return [_batch(tokens, windows) for windows in torch.split(order, size)]


def _batch(tokens: Tokens, windows: Tensor) -> Batch:
    length = tokens.length[windows]
    longest = int(length.max())
    mask = counted_mask(length, longest, tokens.bos)
    return Batch(windows, tokens.input_ids[windows, :longest], length, mask)


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


def check_centring(lm: LanguageModel, hook: HookPoint, center: bool) -> None:
    """Raise CanonError, with the reason, if centring would change what the model computes."""
    reason = centring_refused(lm.model, hook) if center else None
    if reason is not None:
        raise CanonError(f"activations at {hook.name} cannot be centred: {reason}", where=lm.name)


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


def _value_at(lm: LanguageModel, hook: HookPoint, batch: Batch) -> Tensor:
    """The value at the hook [w, longest, d]."""
    try:
        with _stopping_at(lm, hook):
            forward(lm, batch)
    except _Reached as reached:
        return check_shape(reached.value, hook, batch)
    raise never_ran(hook)


def never_ran(hook: HookPoint) -> CanonError:
    """The error for a module that the forward pass does not call."""
    return CanonError(
        f"the model never calls {hook.module} by itself, so it has no value there",
        where=hook.name,
        hint="Hook a block, its attention or its MLP.",
    )


def _empty(out: Path | None, shape: tuple[int, int]) -> Any:
    if out is None:
        return np.empty(shape, dtype=np.float32)
    array = np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):
        _reserve(out)
    return array


def _reserve(path: Path) -> None:
    """Take a mapped file's place on the disk now: a full disk later would be a SIGBUS."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise CanonError(
                f"{in_units(size)} of activations cannot be written ({error.strerror})",
                where=str(path),
                hint="Free some of the disk, lower `tokens`, or use another --store.",
            ) from None


def _check_context(context: int, least: int, lm: LanguageModel, limit: int | None) -> None:
    if context < least:
        raise CanonError(f"context must be at least {least}, got {context}", where=lm.name)
    if lm.longest is not None and context > lm.longest:
        raise CanonError(
            f"context must be at most the model's {lm.longest} positions, got {context}",
            where=lm.name,
        )
    if limit is not None and limit < 1:
        raise CanonError(f"tokens must be at least 1, got {limit}")


def _check_vocabulary(largest: int, lm: LanguageModel) -> None:
    known = lm.model.get_input_embeddings().num_embeddings
    if largest >= known:
        raise CanonError(
            f"the tokenizer gives token {largest}, and the model has {known}",
            where=lm.name,
            hint="The tokenizer is of another model.",
        )


def _not_finite(
    vectors: Tensor, batch: Batch, tokens: Tokens, hook: HookPoint, lm: LanguageModel
) -> CanonError:
    """The error that names the first bad token of a batch."""
    bad = int((~torch.isfinite(vectors)).any(dim=1).nonzero()[0])
    row, position = batch.mask.nonzero()[bad].tolist()
    doc = int(tokens.doc[batch.windows[row]])
    name = tokens.names[doc] if tokens.names else f"document {doc}"
    token = lm.tokenizer.decode([int(batch.input_ids[row, position])])
    return CanonError(
        f"the activation at {hook.name} is not finite on token {position} ({token!r}) "
        f"of a window of {name!r}",
        where=lm.name,
        hint="Load the model in float32.",
    )
