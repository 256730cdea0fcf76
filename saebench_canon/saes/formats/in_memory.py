"""An SAE in memory as a source of a suite: what a notebook hands in."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from uuid import uuid4

import torch

from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.saes.formats.any_object import canonical


class InMemory:
    """An SAE that a notebook handed in."""

    def __init__(self, sae: object, name: str) -> None:
        self.object = canonical(sae, name=name)
        self.name = name
        self._digest = _content(self.object) or uuid4().hex

    def digest(self) -> str:
        """A digest of all that shapes its codes, or a name of its own where that is hidden.

        Of an SAE that is wrapped, what `encode` does can only be asked, never read: such an SAE is
        equal to nothing but itself, and its records serve this call alone.
        """
        return self._digest

    def __str__(self) -> str:
        return f"memory:{self.name}"


def _content(sae: CanonicalSAE) -> str | None:
    """A digest of every number of an SAE in canonical form; None where a callable hides some."""
    if not isinstance(sae.coder, LinearEncoder):
        return None
    digest = hashlib.blake2b(digest_size=16)
    parts = {field.name: getattr(sae.coder, field.name) for field in fields(sae.coder)}
    for name, part in sorted({**parts, "W_dec": sae.W_dec, "b_dec": sae.b_dec}.items()):
        if isinstance(part, torch.Tensor):
            header = f"{name} {part.dtype} {tuple(part.shape)}"
            digest.update(header.encode())
            digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{name} {part!r}".encode())
    return digest.hexdigest()
