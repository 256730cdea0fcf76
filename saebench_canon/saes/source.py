"""What is the SAE of a ref? A checkpoint, described and digested once, however often asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Adapter, Description
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry
from saebench_canon.saes.hub_download import cached_commit, cached_files
from saebench_canon.saes.memory_needed import check_memory, sae_bytes

if TYPE_CHECKING:
    from saebench_canon.plugin.data import DataSpec
    from saebench_canon.plugin.sae import CanonicalSAE
    from saebench_canon.plugin.source import Request

CALIBRATION_VERSION = 1  # of the rule for thresholds that no checkpoint stores
WHOLE = 0.5  # the share of an SAE's weights from which its files count as downloaded


@dataclass(frozen=True)
class Checkpoint:
    """An SAE that a ref names; equal to another of the same ref."""

    uri: Ref
    registry: Registry = field(compare=False, repr=False)

    @property
    def ref(self) -> str:
        """The ref as it is written."""
        return str(self.uri)

    @property
    def local(self) -> bool:
        """Whether the ref names a path."""
        return self.uri.local

    @property
    def training(self) -> None:
        """None: it is trained already."""

    @cached_property
    def _reader(self) -> tuple[Adapter, Ref]:
        """The adapter that reads the checkpoint, and the ref as that adapter writes it."""
        return self.registry.reader(self.uri)

    @cached_property
    def _description(self) -> Description:
        adapter, ref = self._reader
        return adapter.describe(ref)

    @cached_property
    def content(self) -> str:
        """What its adapter says that it is: a digest, or a hub's name and revision."""
        adapter, ref = self._reader
        _ = self._stamp  # taken before it is read: from now on the files must stay as they are
        return adapter.identity(ref)

    @cached_property
    def _stamp(self) -> tuple[tuple[str, int, int], ...]:
        return _stamp(self.uri)

    def describe(self) -> Description:
        """What the checkpoint says of itself."""
        return self._description

    def identity(self, data: DataSpec | None, of_input: Callable[[str], str]) -> Mapping[str, Any]:
        """Its content, and the data that a missing threshold is calibrated on."""
        content = {"content": self.content}
        if data is None or not self._lacks_threshold:
            return content
        calibration_data = of_input(data.calibrates_on)
        calibrated = {"version": CALIBRATION_VERSION, "on": calibration_data}
        return {**content, "calibrated": calibrated}

    def load(self, request: Request) -> CanonicalSAE:
        """The SAE in canonical form, calibrated on its data if it stores no threshold."""
        sae = self.as_stored(device=request.device, dtype=request.dtype)
        if request.data is None or not self._lacks_threshold:
            return sae
        from saebench_canon.saes.calibration import calibrate

        return calibrate(sae, request.input(request.data.calibrates_on))

    def as_stored(self, *, device: str = "cpu", dtype: str = "float32") -> CanonicalSAE:
        """The SAE in canonical form, without a threshold if it stores none.

        Raises CanonError for files that have changed since they were identified.
        """
        adapter, ref = self._reader
        content = self.content
        if self._stamp != _stamp(self.uri):
            raise self._changed()
        sae = adapter.load(ref, device=device, dtype=dtype)
        if self.local and adapter.identity(ref) != content:  # overwritten while it was read
            raise self._changed()
        return sae

    def _changed(self) -> CanonError:
        return CanonError(f"'{self.ref}' has changed since the suite was read", hint="Run again.")

    def trained(self, request: Request) -> None:
        """None: it was not trained here."""

    def check_fits(self, dtype: str) -> None:
        """Raise CanonError for a checkpoint on disk that is larger than memory."""
        if not self.local:
            return
        size = self.describe()
        if size.d is not None and size.width is not None:
            needed = sae_bytes(size.d, size.width, dtype, stored=size.dtype or "float32")
            check_memory(needed, f"an SAE of {size.width} latents", where=self.uri.target)

    def to_download(self, weights: int | None) -> int | None:
        """0 for a checkpoint on disk or in the hub's cache, else the bytes of its weights."""
        if self.local:
            return 0
        cached = self._cached_bytes()
        return 0 if cached and (weights is None or cached >= WHOLE * weights) else weights

    def commit(self) -> str | None:
        """The commit of the snapshot in the hub's cache; None for a checkpoint on disk."""
        if self._repository is None:
            return None
        repository, _ = self._repository
        return cached_commit(repository, self.uri.revision)

    @property
    def _lacks_threshold(self) -> bool:
        """Whether it is calibrated on its data; for a hub's SAE, its format alone decides."""
        if self.local:
            return not self.describe().calibrated
        adapter, _ = self._reader
        return bool(getattr(adapter, "calibrates", False))

    @property
    def _repository(self) -> tuple[str, str] | None:
        """The hub's repository and the folder in it, if the adapter knows them."""
        if self.local:
            return None
        adapter, ref = self._reader
        locate: Callable[[Ref], tuple[str, str]] | None = getattr(adapter, "repository", None)
        return None if locate is None else locate(ref)

    def _cached_bytes(self) -> int:
        with suppress(CanonError):  # describing the ref reports the error
            repository = self._repository
            folder = None if repository is None else cached_files(*repository, self.uri.revision)
            if folder is not None:
                return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        return 0


def _stamp(uri: Ref) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of each file of a checkpoint on disk."""
    if not uri.local:
        return ()
    files = sorted(uri.path.glob("*")) if uri.path.is_dir() else [uri.path]
    stats = [(file, file.stat()) for file in files if file.is_file()]
    return tuple((file.name, stat.st_mtime_ns, stat.st_size) for file, stat in stats)
