"""Documents to windows of tokens: which tokens count.

A window is the BOS token, if the tokenizer has one, and up to context − 1 tokens of one document.
The BOS position and the padding never count, neither as an activation nor in a loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saebench_canon.data.language_model import LanguageModel
from saebench_canon.data.text import Document
from saebench_canon.errors import CanonError

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
    with_bos: bool = True,
) -> Tokens:
    """Windows of at most `context` tokens, documents in the given order and never mixed.

    A window of fewer than `shortest` tokens besides its BOS is dropped (one token alone has nothing
    to predict). With a `limit`, reading stops as soon as so many tokens count, and the last window
    is cut so that exactly `limit` do; fewer do if the text ends before.

    Raises:
        CanonError: the context or the tokenizer does not suit the model, or the text does not fill
            one window.
    """
    bos = lm.bos if with_bos else None
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
