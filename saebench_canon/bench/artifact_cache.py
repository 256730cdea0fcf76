"""Where inputs and SAEs come from: memory, the store, or being made now by one process."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from saebench_canon.bench.identity import Identities
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError, placed
from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.fingerprint import fingerprint
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry
from saebench_canon.plugin.source import Request
from saebench_canon.saes.source import Checkpoint
from saebench_canon.suite.specs import SaeSpec

if TYPE_CHECKING:
    from torch import Tensor

    from saebench_canon.plugin.sae import CanonicalSAE

T = TypeVar("T")
HELD_IN_MEMORY = 12
KEPT = "kept.safetensors"


@dataclass(frozen=True)
class Execution:
    """How cases are computed; none of it is part of what a case is."""

    device: str = "cpu"
    batch_size: int = 4096
    threads: int = 1


@dataclass
class ArtifactCache:
    """Makes what metrics ask for, each thing once."""

    registry: Registry
    store: Store
    identities: Identities
    execution: Execution
    _held: OrderedDict[str, Any] = field(default_factory=OrderedDict, repr=False)
    _failed: dict[str, Exception] = field(default_factory=dict, repr=False)

    def input(self, name: str, data: DataSpec | None, sae: SaeSpec | None = None) -> Any:
        """An input by name: from memory, from the store, or made now."""
        if name == "data":
            return data
        if name == "sae":
            assert sae is not None
            return self.sae(sae, data)
        made = self.registry.inputs[name]
        if made.per == "data":
            sae = None
        key = self.identities.input(name, data, sae)

        def make(folder: Path | None = None) -> Any:
            given = {
                "device": self.execution.device,
                "batch_size": self.execution.batch_size,
                "folder": folder,
            }
            return made.make(*[
                given[need] if need in given
                else self.input(need, data, sae) if self.identities.available(need, data)
                else None
                for need in made.needs
            ])  # fmt: skip

        def kept() -> Any:
            if made.save is None or made.load is None:
                return make()
            save = made.save
            what = f"{name} of {sae.name if sae is not None else data.name if data else 'no data'}"
            return self._artefact(key, lambda draft: save(make(draft), draft), made.load, what)

        return self._hold(key, kept, where=None if data is None else data.where)

    def sae(self, spec: SaeSpec, data: DataSpec | None) -> CanonicalSAE:
        """The canonical SAE of a spec: loaded, or trained first if the store does not have it."""
        key = self.identities.sae(spec, data)
        loaded: CanonicalSAE = self._hold(
            f"{key}/{self.execution.device}",
            lambda: spec.source.load(self._request(spec, data)),
            where=spec.where,
        )
        return loaded

    def named(self, text: str) -> CanonicalSAE:
        """The SAE that a setting names; one that selects over batches has no threshold yet."""
        source = Checkpoint(Ref.parse(text), self.registry)

        def load() -> CanonicalSAE:
            sae = source.as_stored()
            reads = source.describe().normalize
            if reads != "none":
                raise CanonError(
                    f"'{text}' normalises what it reads ({reads}), and what a setting names reads"
                    " rows as they are"
                )
            return sae

        opened: CanonicalSAE = self._hold(f"named {self.identities.named(text)}", load, where=None)
        return opened

    def training(self, spec: SaeSpec, data: DataSpec | None) -> Mapping[str, Any] | None:
        """How an SAE's training went; None for one that was not trained here."""
        return spec.source.trained(self._request(spec, data))

    def _request(self, spec: SaeSpec, data: DataSpec | None) -> Request:
        def artefact(make: Callable[[Path], None]) -> Path:
            key = self.identities.sae(spec, data)
            return self.store.artefact(key, make, what=f"training of {spec.name}")

        return Request(
            self.execution.device, spec.dtype, data, lambda name: self.input(name, data), artefact
        )

    def memo(
        self, key: Mapping[str, Any], make: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        """Numbers that depend on nothing but the key: computed once for all cases and runs."""

        def write(folder: Path) -> None:
            (folder / "memo.json").write_text(json.dumps(make()), encoding="utf-8")

        def read(folder: Path) -> dict[str, float]:
            numbers: dict[str, float]
            numbers = json.loads((folder / "memo.json").read_text(encoding="utf-8"))
            return numbers

        what = f"the null {key.get('name', '')}".strip()
        return self._artefact(fingerprint({"memo": dict(key)}), write, read, what)

    def keep(
        self, key: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """Tensors that depend on nothing but the key: made once for all cases and runs."""
        from safetensors.torch import load_file, save_file

        def write(folder: Path) -> None:
            made = {name: tensor.contiguous() for name, tensor in make().items()}
            save_file(made, folder / KEPT)

        def read(folder: Path) -> Mapping[str, Tensor]:
            tensors: dict[str, Tensor] = load_file(folder / KEPT)
            return tensors

        what = str(key.get("name", "tensors"))
        return self._artefact(fingerprint({"keep": dict(key)}), write, read, what)

    def _artefact(
        self, key: str, make: Callable[[Path], None], load: Callable[[Path], T], what: str
    ) -> T:
        """What is read from an artefact, made if need be, and anew where it is damaged on disk."""
        for _ in range(2):
            folder = self.store.artefact(key, make, what=what)
            try:
                return load(folder)
            except Exception:  # in whatever way its format fails
                self.store.drop_artefact(key)
        raise CanonError(f"the {what} cannot be read back from {self.store.root}")

    def _hold(self, key: str, make: Callable[[], Any], *, where: str | None) -> Any:
        """What memory has under the key, made if need be; what failed once fails untried."""
        if key in self._failed:
            raise self._failed[key]
        if key not in self._held:
            try:
                with placed(where):
                    self._held[key] = make()
            except Exception as error:
                self._failed[key] = error
                raise
            while len(self._held) > HELD_IN_MEMORY:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]
