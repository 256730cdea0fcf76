"""The scheme `file`: a path, loaded by the adapter of its format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Adapter, Description
from saebench_canon.plugin.known_formats import lacking_scheme
from saebench_canon.plugin.ref import Ref
from saebench_canon.saes.weights.contents import contents
from saebench_canon.saes.weights.regular_file import refuse_special

if TYPE_CHECKING:
    import torch

    from saebench_canon.plugin.sae import CanonicalSAE

NAMED = 3  # checkpoints in a hint
WHAT_TO_DO = "`saebench-canon plugins` lists the formats; `new adapter` writes a new one."
Claim = Callable[[Path], str | None]
Lookup = Callable[[str], Adapter]


class LocalAdapter:
    """Reads `file:PATH` by the adapter of the path's format."""

    scheme = "file"

    def __init__(self, claim: Claim, lookup: Lookup, recognise: Claim) -> None:
        self._claim = claim
        self._lookup = lookup
        self._recognise = recognise

    def identity(self, ref: Ref) -> str:
        """The identity by the format's adapter."""
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
        """None: paths are not searched."""
        return ()

    def owner(self, ref: Ref) -> tuple[Adapter, Ref]:
        """The adapter of the path's format, and the ref with its scheme."""
        path = ref.path
        refuse_special(path)
        if not path.exists():
            raise CanonError(f"'{ref.target}' does not exist")
        claimed = self._claim(path)
        if claimed is None:
            kind = "folder" if path.is_dir() else "file"
            raise CanonError(
                f"the {kind} '{ref.target}' holds no checkpoint of a known format",
                hint=self._hint(path),
            )
        owned = Ref.parse(claimed)
        return self._lookup(owned.scheme), owned

    def _hint(self, path: Path) -> str:
        """What to do about a path that no plugin claims, and what it holds."""
        scheme = self._recognise(path)
        if scheme is not None and not self._has(scheme) and (install := lacking_scheme(scheme)):
            return install
        checkpoints = sorted(self._within(path)) if path.is_dir() else []
        if checkpoints:
            return f"Name a checkpoint in it: {', '.join(map(str, checkpoints[:NAMED]))}."
        return f"{contents(path)} {WHAT_TO_DO}"

    def _has(self, scheme: str) -> bool:
        try:
            self._lookup(scheme)
        except KeyError:
            return False
        return True

    def _within(self, folder: Path) -> Iterator[Path]:
        """The checkpoints in a folder."""
        subfolders = (entry for entry in folder.iterdir() if entry.is_dir())
        yield from (subfolder for subfolder in subfolders if self._claim(subfolder))
        yield from claimed_files(folder, self._claim)


def claimed_files(folder: Path, claim: Claim) -> Iterator[Path]:
    """The files of a folder that are checkpoints by themselves; hidden ones are left out."""
    for entry in folder.iterdir():
        if entry.is_file() and not entry.name.startswith(".") and claim(entry) is not None:
            yield entry
