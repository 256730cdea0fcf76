"""Documents to windows of tokens: which tokens count.

A window is the BOS token, if the tokenizer has one, and up to context − 1 tokens of one document.
Special tokens in a text are no text: BOS and EOS end a window and are left out, others (the markup
of a chat) are read by the model. BOS, padding, special tokens and the first `skip` positions never
count, neither as an activation nor in a loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from saebench_canon.data.language_model import LanguageModel
from saebench_canon.data.text import Document
from saebench_canon.errors import CanonError
from saebench_canon.inputs.holdout import digest_of_text, first_of_each

PADDING = 0  # any token will do: a causal model's tokens do not see what is to their right


@dataclass(frozen=True, eq=False)
class Tokens:
    """Windows of tokens, in document order."""

    input_ids: Tensor  # [W, context] int64, padded on the right
    length: Tensor  # [W] int64, tokens of each window, BOS included
    doc: Tensor  # [W] int64, each window's document, 0 … documents − 1
    documents: int
    bos: bool  # whether every window starts with BOS
    names: tuple[str, ...] = ()  # of the documents
    counted: Tensor | None = None  # [W, context] bool; None: all but BOS and padding
    special: tuple[tuple[str, int], ...] = ()  # special tokens met in the text, and how often
    twins: tuple[int, ...] = ()  # of each document the first with the same text

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    @property
    def context(self) -> int:
        """The number of tokens of a full window."""
        return int(self.input_ids.shape[1])

    @property
    def counts(self) -> Tensor:
        """How many tokens of each window count, [W] int64."""
        return self.mask.sum(dim=1)

    @property
    def token_doc(self) -> Tensor:
        """The document of every token that counts, in order, [n] int64."""
        return torch.repeat_interleave(self.doc, self.counts)

    @property
    def positions(self) -> Tensor:
        """The position in its window of every token that counts, BOS at 0, [n] int64."""
        return self.mask.nonzero()[:, 1]

    @property
    def mask(self) -> Tensor:
        """Which positions hold a token that counts, [W, context] bool."""
        if self.counted is not None:
            return self.counted
        position = torch.arange(self.context, device=self.length.device)
        return (position >= int(self.bos)) & (position < self.length[:, None])

    def at(self, windows: Tensor | slice) -> Tokens:
        """Some windows, chosen by index or mask; the numbering of documents stays."""
        return replace(
            self,
            input_ids=self.input_ids[windows],
            length=self.length[windows],
            doc=self.doc[windows],
            counted=None if self.counted is None else self.counted[windows],
        )

    def of(self, documents: Tensor) -> Tokens:
        """The windows of the documents where the mask [documents] is true; numbering unchanged."""
        return self.at(documents[self.doc])


@dataclass(frozen=True, eq=False)
class Batch:
    """Some windows of about equal length, cut to the longest of them."""

    windows: Tensor  # [w] indices into the windows of the tokens
    input_ids: Tensor  # [w, longest]
    length: Tensor  # [w]
    mask: Tensor  # [w, longest] bool, tokens that count


def tokenize(
    documents: Iterable[Document],
    lm: LanguageModel,
    *,
    context: int,
    limit: int | None = None,
    shortest: int = 2,
    with_bos: bool = True,
    skip: int = 0,
) -> Tokens:
    """Windows of at most `context` tokens, documents in the given order and never mixed.

    A window of fewer than `shortest` tokens besides its BOS is dropped (one token alone has nothing
    to predict), and so is one of which no token counts. With a `limit`, reading stops as soon as so
    many tokens count, and the last window is cut so that exactly `limit` do; fewer do if the text
    ends before.

    Raises:
        CanonError: the context or the tokenizer does not suit the model, or the text does not fill
            one window.
    """
    bos = lm.bos if with_bos else None
    head = [] if bos is None else [bos]
    room = context - len(head)
    _check_context(context, len(head) + skip + shortest, lm, limit)
    special = _SpecialTokens(lm.tokenizer)
    rows: list[list[int]] = []
    counted: list[list[bool]] = []
    docs: list[int] = []
    names: list[str] = []
    contents: list[bytes] = []
    count = read = 0
    for document in documents:
        ids = lm.tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
        read += len(ids)
        pieces = [
            (piece, [place >= skip and token not in special.ids
                     for place, token in enumerate(piece)])
            for piece in _pieces(special.without_separators(ids), room)
            if len(piece) >= shortest
        ]  # fmt: skip
        pieces = [(piece, flags) for piece, flags in pieces if any(flags)]
        if not pieces:
            continue
        for piece, flags in pieces:
            if limit is not None and sum(flags) > limit - count:
                end = _end_of(flags, limit - count)
                piece, flags = piece[:end], flags[:end]
            if piece:
                rows.append(head + piece)
                counted.append([False] * len(head) + flags)
                docs.append(len(names))
                count += sum(flags)
        names.append(document.name)
        contents.append(digest_of_text(special.taken_out(document.text)))
        if count == limit:
            break
    else:
        if read < room or not rows:
            raise CanonError(
                f"the text has {read} tokens, too few for one context of {context}",
                hint="Use a longer text or a smaller `context`.",
            )
    _check_vocabulary(max(map(max, rows)), lm)
    tokens = Tokens(
        _padded(rows, context, PADDING),
        torch.tensor([len(row) for row in rows]),
        torch.tensor(docs),
        len(names),
        bos is not None,
        tuple(names),
        special=special.counted(),
        twins=tuple(first_of_each(contents)),
    )
    mask = _padded(counted, context, False)
    return tokens if mask.equal(tokens.mask) else replace(tokens, counted=mask)


class _SpecialTokens:
    """The special tokens of a tokenizer, and how many of each the text holds."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._met: Counter[int] = Counter()
        self._bos, self._eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        added = getattr(tokenizer, "added_tokens_decoder", {})
        ids = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
        unknown = tokenizer.unk_token_id  # stands for a text that the vocabulary lacks
        self.ids = frozenset(ids - ({unknown} - {self._bos, self._eos}))
        self._texts = sorted(
            {str(tokenizer.convert_ids_to_tokens(token)) for token in self.ids}, key=len
        )[::-1]

    def without_separators(self, ids: list[int]) -> list[list[int]]:
        """The parts of a document between BOS or EOS tokens; an EOS in a chat ends only a turn."""
        if self.ids.isdisjoint(ids):
            return [ids]
        special = [token for token in ids if token in self.ids]
        self._met.update(special)
        separators = {self._bos, self._eos}
        if set(special) - separators:
            separators = {self._bos}
        return [
            list(part) for separates, part in groupby(ids, separators.__contains__) if not separates
        ]

    def taken_out(self, text: str) -> str:
        """The text without what stands for special tokens."""
        for token in self._texts:
            text = text.replace(token, " ")
        return text

    def counted(self) -> tuple[tuple[str, int], ...]:
        """The special tokens met, as text, and how often."""
        return tuple(
            (str(self._tokenizer.convert_ids_to_tokens(token)), count)
            for token, count in sorted(self._met.items())
        )


def _pieces(parts: Iterable[list[int]], room: int) -> Iterator[list[int]]:
    """The parts of a document, each cut after `room` tokens."""
    for part in parts:
        yield from (part[start : start + room] for start in range(0, len(part), room))


def _end_of(flags: Sequence[bool], count: int) -> int:
    """The length at which `count` of the flags are true."""
    ends = [place + 1 for place, counts in enumerate(flags) if counts]
    return ends[count - 1] if count else 0


def _padded(rows: Sequence[Sequence[int]], context: int, padding: int) -> Tensor:
    """Rows of different lengths as one tensor [rows, context], padded on the right."""
    padded = torch.full((len(rows), context), padding)
    for window, row in zip(padded, rows, strict=True):
        window[: len(row)] = torch.tensor(row)
    return padded


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
    part = tokens.at(windows)
    return Batch(windows, part.input_ids[:, :longest], length, part.mask[:, :longest])
