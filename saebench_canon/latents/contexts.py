"""A token with the text around it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from saebench_canon.inputs.tokens import Tokens
from saebench_canon.latents.token_text import LOST, token_text
from saebench_canon.plugin.evidence import Context

AROUND = 24  # tokens of text on each side


@dataclass(frozen=True, eq=False)
class Text:
    """The tokens that scores use, in the order of codes, and their tokenizer."""

    tokens: Tokens
    tokenizer: Any

    @cached_property
    def positions(self) -> Tensor:
        """Window and position in it of each token used, [n, 2]."""
        return self.tokens.mask.nonzero()

    @cached_property
    def ids(self) -> Tensor:
        """The id of each token used, [n]."""
        return self.tokens.input_ids[self.tokens.mask]

    def context(self, index: int, code: float) -> Context:
        """The token of that index with the text around it."""
        window, position = self.positions[index].tolist()
        ids = self.tokens.input_ids[window, : int(self.tokens.length[window])].tolist()
        doc = int(self.tokens.doc[window])
        first = max(int(self.tokens.bos), position - AROUND)
        return Context(
            before=self._read(ids[first:position]),
            token=token_text(self.tokenizer, ids[position]),
            after=self._after(ids[position : position + 1 + AROUND]),
            code=code,
            document=self.tokens.names[doc] if self.tokens.names else f"document {doc}",
        )

    def _after(self, ids: list[int]) -> str:
        """The text after the first token, with a leading space that some tokenizers drop."""
        first, joined = self._decoded(ids[:1]), self._decoded(ids)
        if LOST in first or not joined.startswith(first):
            return self._read(ids[1:])
        return joined[len(first) :].strip(LOST)

    def _read(self, ids: list[int]) -> str:
        """Tokens as text, without letters that are cut in two."""
        return self._decoded(ids).strip(LOST)

    def _decoded(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)) if ids else ""


def alike(first: Context, second: Context) -> bool:
    """Whether two contexts read the same on at least one side, as copied passages do."""
    return first.token == second.token and (
        first.before[-20:] == second.before[-20:] or first.after[:20] == second.after[:20] != ""
    )
