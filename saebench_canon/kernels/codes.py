"""Sparse codes of many tokens: kept in compressed rows, never as a dense [n, m]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of n tokens over `width` latents in compressed sparse rows; every value is > 0.

    `indptr` [n + 1] int64, `indices` [nnz] int32 or int64 (ascending in a row), `values` [nnz].
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    width: int

    @classmethod
    def from_dense(cls, codes: Tensor) -> Codes:
        """The positive entries of dense codes [n, m]."""
        active = codes > 0
        indptr = torch.zeros(len(codes) + 1, dtype=torch.int64, device=codes.device)
        torch.cumsum(active.sum(dim=1), dim=0, out=indptr[1:])
        indices = active.nonzero()[:, 1].to(torch.int32)
        return cls(indptr, indices, codes[active], codes.shape[1])

    @classmethod
    def concatenate(cls, parts: Sequence[Codes]) -> Codes:
        """The codes of consecutive batches of tokens as one."""
        lengths = torch.cat([part.indptr.diff() for part in parts])
        indptr = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
        torch.cumsum(lengths, dim=0, out=indptr[1:])
        indices = torch.cat([part.indices for part in parts])
        return cls(indptr, indices, torch.cat([part.values for part in parts]), parts[0].width)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @cached_property
    def counts(self) -> Tensor:
        """On how many tokens each latent is active, [m] int64."""
        return torch.bincount(self.indices, minlength=self.width)

    @property
    def live(self) -> Tensor:
        """Which latents are active on some token, [m] bool."""
        return self.counts > 0

    @property
    def l0(self) -> float:
        """Mean number of active latents on a token."""
        return len(self.values) / max(len(self), 1)

    def to(self, device: str | torch.device) -> Codes:
        """The same codes on another device."""
        if self.values.device == torch.device(device):
            return self
        return Codes(
            self.indptr.to(device), self.indices.to(device), self.values.to(device), self.width
        )

    def rows(self, start: int, stop: int) -> Codes:
        """The codes of the tokens start to stop."""
        bounds = self.indptr[start : min(stop, len(self)) + 1]
        first, last = int(bounds[0]), int(bounds[-1])
        return Codes(bounds - first, self.indices[first:last], self.values[first:last], self.width)

    def at(self, tokens: Tensor) -> Codes:
        """The codes of the tokens with these numbers, in their order."""
        lengths = self.indptr.diff()[tokens]
        indptr = torch.zeros(len(tokens) + 1, dtype=torch.int64, device=self.indptr.device)
        torch.cumsum(lengths, dim=0, out=indptr[1:])
        start = torch.repeat_interleave(self.indptr[tokens] - indptr[:-1], lengths)
        entries = torch.arange(int(indptr[-1]), device=start.device) + start
        return Codes(indptr, self.indices[entries], self.values[entries], self.width)

    def chunks(self, size: int) -> Iterator[Codes]:
        """The codes in order, `size` tokens at a time."""
        for start in range(0, len(self), size):
            yield self.rows(start, start + size)

    def token_ids(self) -> Tensor:
        """The token of every stored value, [nnz] int64."""
        return torch.repeat_interleave(
            torch.arange(len(self), device=self.indptr.device), self.indptr.diff()
        )

    def dense(self) -> Tensor:
        """Dense codes [n, m]; for a chunk or a test, not for a whole data set."""
        out = self.values.new_zeros(len(self), self.width)
        out[self.token_ids(), self.indices.long()] = self.values
        return out

    def keep(self, latents: Tensor) -> Codes:
        """The codes with only the latents where the mask [m] is true; the width stays."""
        chosen = latents[self.indices.long()]
        indptr = torch.zeros_like(self.indptr)
        sums = torch.cumsum(chosen, dim=0)
        indptr[1:] = (
            torch.where(self.indptr[1:] > 0, sums[(self.indptr[1:] - 1).clamp(min=0)], 0)
            if len(sums)
            else 0
        )
        return Codes(indptr, self.indices[chosen], self.values[chosen], self.width)

    def decode(self, rows: Tensor) -> Tensor:
        """Codes times decoder rows [m, d], without a bias: [n, d] in the rows' dtype."""
        if len(self) == 0:
            return rows.new_zeros(0, rows.shape[1])
        return functional.embedding_bag(
            self.indices.long(),
            rows,
            self.indptr[:-1],
            mode="sum",
            per_sample_weights=self.values.to(rows.dtype),
        )

    def transposed_matmul(self, x: Tensor) -> Tensor:
        """Transposed codes times x [n, d]: what each latent sums over its tokens, [m, d]."""
        order = torch.argsort(self.indices, stable=True)
        offsets = torch.zeros(self.width, dtype=torch.int64, device=x.device)
        torch.cumsum(self.counts[:-1], dim=0, out=offsets[1:])
        return functional.embedding_bag(
            self.token_ids()[order],
            x,
            offsets,
            mode="sum",
            per_sample_weights=self.values[order].to(x.dtype),
        )

    def column_sums(self, power: int = 1) -> Tensor:
        """Sum over tokens of each latent's code to a power, [m] float64."""
        values = self.values.double() ** power
        sums = torch.zeros(self.width, dtype=torch.float64, device=values.device)
        return sums.index_add_(0, self.indices.long(), values)
