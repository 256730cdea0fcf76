"""Where a latent fires and what it promotes: evidence from codes, text and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from saebench_canon.data.hooks import HookPoint
from saebench_canon.data.language_model import LanguageModel
from saebench_canon.kernels.codes import Codes
from saebench_canon.latents.contexts import Text, alike
from saebench_canon.latents.token_text import token_text
from saebench_canon.latents.unembedding import logits_along
from saebench_canon.plugin.evidence import Context, Promoted, Token

TOKENS, CONTEXTS = 8, 6  # of each, how many
APART = 8  # tokens between two contexts of one window
CANDIDATES = 50 * CONTEXTS  # strongest tokens among which contexts are chosen

Weights = Mapping[int, float]  # latents and how much of each; one latent at 1, or a meta-latent's


@dataclass(frozen=True)
class Firing:
    """On how much of the evaluation data a latent is active, and how strongly."""

    tokens: int
    of: int
    documents: int
    mean: float
    largest: float


@dataclass(frozen=True, eq=False)
class Observed:
    """The latents of one SAE on the evaluation data; without text or model, what is left."""

    rows: Tensor  # [m, d]
    codes: Codes | None = None
    doc: Tensor | None = None  # [n] the document of each token
    text: Text | None = None
    model: tuple[LanguageModel, HookPoint] | None = None

    @cached_property
    def _columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and values of all codes in order of latents, and where each latent's start."""
        assert self.codes is not None
        order = torch.argsort(self.codes.indices, stable=True)
        ends = torch.cumsum(self.codes.counts, dim=0)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends])
        return self.codes.token_ids()[order], self.codes.values[order].double(), starts

    def active(self, latent: int) -> tuple[Tensor, Tensor]:
        """The tokens on which a latent is active, ascending, and its codes there."""
        tokens, values, starts = self._columns
        own = slice(int(starts[latent]), int(starts[latent + 1]))
        return tokens[own], values[own]

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
        """The tokens with the largest shares of a latent's summed codes; of several, the mean."""
        if self.codes is None or self.text is None:
            return ()
        base = torch.bincount(self.text.ids).double() / len(self.text.ids)
        size = len(base)
        share = torch.zeros_like(base)
        for latent, weight in weights.items():
            tokens, values = self.active(latent)
            if len(tokens):
                own = torch.bincount(self.text.ids[tokens], weights=values, minlength=size)
                share += weight * own / own.sum()
        share /= share.sum().clamp(min=torch.finfo(torch.float64).tiny)
        order = torch.sort(share, descending=True, stable=True).indices[:TOKENS]
        return tuple(
            Token(token_text(self.text.tokenizer, int(at)), float(share[at]), float(base[at]))
            for at in order
            if share[at] > 0
        )

    def contexts(self, weights: Weights) -> tuple[Context, ...]:
        """Where the weighed sum of codes is largest, without what reads alike or stands nearby."""
        if self.codes is None or self.text is None:
            return ()
        sums = torch.zeros(len(self.codes), dtype=torch.float64)
        for latent, weight in weights.items():
            tokens, values = self.active(latent)
            sums[tokens] += weight * values
        order = torch.sort(sums, descending=True, stable=True).indices[:CANDIDATES]
        found: list[Context] = []
        taken: list[tuple[int, int]] = []
        for at in order[sums[order] > 0].tolist():
            window, place = self.text.place[at].tolist()
            if any(window == one and abs(place - other) < APART for one, other in taken):
                continue
            context = self.text.context(at, float(sums[at]))
            if any(alike(context, other) for other in found):
                continue
            found.append(context)
            taken.append((window, place))
            if len(found) == CONTEXTS:
                break
        return tuple(found)

    def promoted(self, weights: Weights) -> tuple[Promoted, ...]:
        """The tokens with the largest logits along a row, or along the weighed sum of rows.

        Of several rows the mean row is taken away first: a meta-SAE decomposes what is beyond it.
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
        return tuple(Promoted(token_text(lm.tokenizer, int(at)), float(logits[at])) for at in best)
