"""An SAE in memory as a source of a suite: what a notebook hands in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch

from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.saes.calibration import calibrate
from saebench_canon.saes.formats.any_object import canonical

if TYPE_CHECKING:
    from saebench_canon.plugin.data import DataSpec
    from saebench_canon.plugin.source import Request


class InMemory:
    """An SAE that a notebook handed in."""

    def __init__(self, sae: object, name: str) -> None:
        self.object = canonical(sae, name=name)
        self.name = name
        self._digest = _content(self.object) or uuid4().hex

    @property
    def ref(self) -> str:
        """The name that it was handed in by."""
        return f"memory:{self.name}"

    @property
    def local(self) -> bool:
        """Always: it is here."""
        return True

    @property
    def training(self) -> None:
        """None: it is trained already."""

    def describe(self) -> Description:
        """What the object is; it reads activations as they are."""
        coder = self.object.coder
        return Description(
            d=self.object.d,
            width=self.object.width,
            architecture=type(coder).__name__,
            k=getattr(coder, "k", None),
            calibrated=getattr(coder, "calibrated", True),
        )

    def identity(self, data: DataSpec | None, of_input: Callable[[str], str]) -> Mapping[str, Any]:
        """A digest of all that shapes its codes, or a name of its own where that is hidden.

        Of an SAE that is wrapped, what `encode` does can only be asked, never read: such an SAE is
        equal to nothing but itself, and its records serve this call alone.
        """
        return {"object": self._digest}

    def load(self, request: Request) -> CanonicalSAE:
        """The object, calibrated on its data where it has no threshold."""
        if request.data is None or self.describe().calibrated:
            return self.object
        return calibrate(self.object, request.input(request.data.calibrates_on))

    def trained(self, request: Request) -> None:
        """None: it was trained elsewhere."""

    def check_fits(self, dtype: str) -> None:
        """Nothing: it is in memory already."""

    def to_download(self, weights: int | None) -> int:
        """Nothing."""
        return 0

    def commit(self) -> None:
        """None: it is in no repository."""


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
