"""Which documents are held out: documents of one content are all on one side."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.plugin.data import SPLIT_SEED, DataSpec

if TYPE_CHECKING:
    from saebench_canon.plugin.activations import Acts


def held_out(data: DataSpec, twins: Sequence[int]) -> list[bool]:
    """Which documents are held out for scoring; all of them if the table has no `holdout`.

    `twins` says of each document which document is the first of its content; the share is one of
    different contents.

    Raises:
        CanonError: one side would be empty.
    """
    if data.holdout is None:
        return [True] * len(twins)
    firsts = [number for number, first in enumerate(twins) if number == first]
    count = round(data.holdout * len(firsts))
    if not 0 < count < len(firsts):
        different = "" if len(firsts) == len(twins) else "different "
        raise CanonError(
            f"holdout = {data.holdout} of {len(firsts)} {different}documents leaves one part empty",
            where=data.where, hint="Use more documents or another share.",
        )  # fmt: skip
    chosen = {firsts[i] for i in random.Random(SPLIT_SEED).sample(range(len(firsts)), count)}
    return [first in chosen for first in twins]


def first_of_each(contents: Iterable[bytes]) -> list[int]:
    """Of each document the number of the first with the same content, from their digests."""
    firsts: dict[bytes, int] = {}
    return [firsts.setdefault(content, number) for number, content in enumerate(contents)]


def digest_of_text(text: str) -> bytes:
    """A digest of a document that white space does not change."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


def twins_of_acts(acts: Acts) -> list[int]:
    """The documents of the same activations, in the order of their numbers in `acts.doc`."""
    import torch

    _, index = torch.unique(acts.doc, return_inverse=True)
    order = torch.argsort(index, stable=True)
    in_order = bool((order.diff() == 1).all())
    start, digests = 0, []
    for size in torch.bincount(index).tolist():
        rows = slice(start, start + size) if in_order else order[start : start + size]
        content = acts.x[rows].contiguous().numpy().tobytes()
        digests.append(hashlib.blake2b(content, digest_size=16).digest())
        start += size
    return first_of_each(digests)
