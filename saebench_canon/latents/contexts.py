"""What a token reads like amid its text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from saebench_canon.inputs.extraction import Tokens
from saebench_canon.latents.token_text import LOST, token_text
from saebench_canon.plugin.evidence import Context

AROUND = 24  # tokens of text on each side


@dataclass(frozen=True, eq=False)
class Text:
    """The tokens that scores use, in the order of codes, and how they read."""

    tokens: Tokens
    tokenizer: Any

    @cached_property
    def place(self) -> Tensor:
        """Window and place in it of each kept token, [n, 2]."""
        return self.tokens.mask.nonzero()

    @cached_property
    def ids(self) -> Tensor:
        """Each kept token, [n]."""
        return self.tokens.input_ids[self.tokens.mask]

    def context(self, at: int, code: float) -> Context:
        """The kept token of that number amid its text."""
        window, place = self.place[at].tolist()
        ids = self.tokens.input_ids[window, : int(self.tokens.length[window])].tolist()
        doc = int(self.tokens.doc[window])
        first = max(int(self.tokens.bos), place - AROUND)
        return Context(
            before=self._read(ids[first:place]),
            token=token_text(self.tokenizer, ids[place]),
            after=self._after(ids[place : place + 1 + AROUND]),
            code=code,
            document=self.tokens.names[doc] if self.tokens.names else f"document {doc}",
        )

    def _after(self, ids: list[int]) -> str:
        """What follows the first token, with the space before it that some tokenizers drop."""
        own, whole = self._decoded(ids[:1]), self._decoded(ids)
        if LOST in own or not whole.startswith(own):
            return self._read(ids[1:])
        return whole[len(own) :].strip(LOST)

    def _read(self, ids: list[int]) -> str:
        """Tokens as text, without the letters that the cut went through."""
        return self._decoded(ids).strip(LOST)

    def _decoded(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)) if ids else ""


def alike(one: Context, other: Context) -> bool:
    """Whether two contexts read the same on one side at least, as copied passages do."""
    return one.token == other.token and (
        one.before[-20:] == other.before[-20:] or one.after[:20] == other.after[:20] != ""
    )
