"""The scheme `file`: a path, whose format says which adapter loads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Adapter, Description
from saebench_canon.plugin.known_formats import lacking_scheme
from saebench_canon.plugin.ref import Ref

if TYPE_CHECKING:
    import torch

    from saebench_canon.plugin.sae import CanonicalSAE

Claim = Callable[[Path], str | None]
Lookup = Callable[[str], Adapter]


class LocalAdapter:
    """Hands `file:PATH` to the adapter whose format the path holds."""

    scheme = "file"

    def __init__(self, claim: Claim, lookup: Lookup, recognise: Claim) -> None:
        self._claim = claim
        self._lookup = lookup
        self._recognise = recognise

    def identity(self, ref: Ref) -> str:
        """The identity under the format's own adapter."""
        owner, claimed = self.owner(ref)
        return owner.identity(claimed)

    def describe(self, ref: Ref) -> Description:
        """What the checkpoint says of itself."""
        owner, claimed = self.owner(ref)
        return owner.describe(claimed)

    def load(
        self, ref: Ref, *, device: str = "cpu", dtype: str | torch.dtype = "float32"
    ) -> CanonicalSAE:
        """The SAE in canonical form."""
        owner, claimed = self.owner(ref)
        return owner.load(claimed, device=device, dtype=dtype)

    def list(self) -> Iterable[str]:
        """Nothing: paths are not known beforehand."""
        return ()

    def owner(self, ref: Ref) -> tuple[Adapter, Ref]:
        """The adapter that the path's format belongs to, and the ref it understands."""
        path = ref.path
        if not path.exists():
            raise CanonError(f"there is no file or folder '{ref.target}'")
        claimed = self._claim(path)
        if claimed is None:
            kind = "folder" if path.is_dir() else "file"
            raise CanonError(
                f"the {kind} '{ref.target}' holds no checkpoint of a known format",
                hint=self._hint(path),
            )
        owned = Ref.parse(claimed)
        return self._lookup(owned.scheme), owned

    def _hint(self, path: Path) -> str | None:
        """What to do about a path that no plugin claims."""
        scheme = self._recognise(path)
        if scheme is None or self._has(scheme):
            return self._within(path)
        return lacking_scheme(scheme)

    def _has(self, scheme: str) -> bool:
        try:
            self._lookup(scheme)
        except KeyError:
            return False
        return True

    def _within(self, path: Path) -> str | None:
        """The hint that names checkpoints one folder below."""
        if not path.is_dir():
            return None
        below = sorted(each for each in path.iterdir() if each.is_dir() and self._claim(each))
        if below:
            return f"Name one of those in it: {', '.join(str(each) for each in below[:3])}."
        return "`saebench-canon plugins` lists the formats, and `new adapter` starts another."
