"""Where a latent fires and what it promotes: evidence from codes, text and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from saebench_canon.data.hook_points import HookPoint
from saebench_canon.data.language_model import LanguageModel
from saebench_canon.kernels.codes import Codes
from saebench_canon.latents.contexts import Text, alike
from saebench_canon.latents.token_text import token_text
from saebench_canon.latents.unembedding import logits_along
from saebench_canon.plugin.evidence import Context, Promoted, Token

TOKENS, CONTEXTS = 8, 6  # how many are listed
APART = 8  # least distance in tokens of two contexts in one window
CANDIDATES = 50 * CONTEXTS  # contexts are chosen among so many tokens with the largest codes

Weights = Mapping[
    int, float
]  # weight by latent: one latent with weight 1, or those of a meta-latent


@dataclass(frozen=True)
class Firing:
    """On how many tokens of the evaluation data a latent is active, and how strongly."""

    tokens: int
    all_tokens: int  # of the evaluation data
    documents: int
    mean: float
    largest: float


@dataclass(frozen=True, eq=False)
class Observed:
    """The latents of one SAE on the evaluation data; text and model may be missing."""

    rows: Tensor  # [m, d]
    codes: Codes | None = None
    doc: Tensor | None = None  # [n] the document of each token
    text: Text | None = None
    model: tuple[LanguageModel, HookPoint] | None = None

    @cached_property
    def _columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """All codes sorted by latent: their tokens, their values, and where each latent starts."""
        assert self.codes is not None
        order = torch.argsort(self.codes.indices, stable=True)
        ends = torch.cumsum(self.codes.counts, dim=0)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends])
        return self.codes.token_ids()[order], self.codes.values[order].double(), starts

    def active(self, latent: int) -> tuple[Tensor, Tensor]:
        """The tokens on which a latent is active, ascending, and its codes there."""
        tokens, values, starts = self._columns
        span = slice(int(starts[latent]), int(starts[latent + 1]))
        return tokens[span], values[span]

    def firing(self, latent: int) -> Firing | None:
        """How often and how strongly a live latent fires."""
        if self.codes is None:
            return None
        tokens, values = self.active(latent)
        documents = len(tokens) if self.doc is None else len(torch.unique(self.doc[tokens]))
        return Firing(
            len(tokens), len(self.codes), documents, float(values.mean()), float(values.max())
        )

    def tokens(self, weights: Weights) -> tuple[Token, ...]:
        """The tokens with the largest shares of a latent's summed codes; the mean over several."""
        if self.codes is None or self.text is None:
            return ()
        base = torch.bincount(self.text.ids).double() / len(self.text.ids)
        size = len(base)
        share = torch.zeros_like(base)
        for latent, weight in weights.items():
            tokens, values = self.active(latent)
            if len(tokens):
                token_codes = torch.bincount(self.text.ids[tokens], weights=values, minlength=size)
                share += weight * token_codes / token_codes.sum()
        share /= share.sum().clamp(min=torch.finfo(torch.float64).tiny)
        order = torch.sort(share, descending=True, stable=True).indices[:TOKENS]
        return tuple(
            Token(
                token_text(self.text.tokenizer, int(token)), float(share[token]), float(base[token])
            )
            for token in order
            if share[token] > 0
        )

    def contexts(self, weights: Weights) -> tuple[Context, ...]:
        """Where the weighted sum of codes is largest, without similar or nearby passages."""
        if self.codes is None or self.text is None:
            return ()
        sums = torch.zeros(len(self.codes), dtype=torch.float64)
        for latent, weight in weights.items():
            tokens, values = self.active(latent)
            sums[tokens] += weight * values
        order = torch.sort(sums, descending=True, stable=True).indices[:CANDIDATES]
        contexts: list[Context] = []
        taken: list[tuple[int, int]] = []
        for index in order[sums[order] > 0].tolist():
            window, position = self.text.positions[index].tolist()
            if any(window == w and abs(position - p) < APART for w, p in taken):
                continue
            context = self.text.context(index, float(sums[index]))
            if any(alike(context, earlier) for earlier in contexts):
                continue
            contexts.append(context)
            taken.append((window, position))
            if len(contexts) == CONTEXTS:
                break
        return tuple(contexts)

    def promoted(self, weights: Weights) -> tuple[Promoted, ...]:
        """The tokens with the largest logits along a row, or along the weighted sum of rows.

        With several rows, the mean row is subtracted first, as a meta-SAE does.
        """
        if self.model is None:
            return ()
        lm, hook = self.model
        rows = self.rows[list(weights)].double()
        weight = torch.tensor(list(weights.values()), dtype=torch.float64)
        if len(rows) > 1:
            live = self.rows if self.codes is None else self.rows[self.codes.live]
            rows = rows - live.double().mean(dim=0)
        (logits,) = logits_along(lm, hook, (weight @ rows)[None])
        best = torch.sort(logits, descending=True, stable=True).indices[:TOKENS]
        return tuple(
            Promoted(token_text(lm.tokenizer, int(token)), float(logits[token])) for token in best
        )
