"""Inputs and SAEs: taken from memory or the store, or computed now by one process."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from saebench_canon.bench.identity import Identities
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError, StoreError, placed
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
IN_MEMORY = 12  # inputs and SAEs that are kept in memory
TENSORS = "kept.safetensors"


@dataclass(frozen=True)
class Execution:
    """How cases are computed; none of it is part of what a case is."""

    device: str = "cpu"
    batch_size: int = 4096
    threads: int = 1


@dataclass
class ArtifactCache:
    """Computes the inputs and loads the SAEs that metrics ask for, each once."""

    registry: Registry
    store: Store
    identities: Identities
    execution: Execution
    _values: OrderedDict[str, Any] = field(default_factory=OrderedDict, repr=False)
    _failed: dict[str, Exception] = field(default_factory=dict, repr=False)

    def input(self, name: str, data: DataSpec | None, sae: SaeSpec | None = None) -> Any:
        """An input by name: from memory, from the store, or computed now."""
        if name == "data":
            return data
        if name == "sae":
            assert sae is not None
            return self.sae(sae, data)
        definition = self.registry.inputs[name]
        if definition.per == "data":
            sae = None
        key = self.identities.input(name, data, sae)

        def make(folder: Path | None = None) -> Any:
            execution = {
                "device": self.execution.device,
                "batch_size": self.execution.batch_size,
                "folder": folder,
            }
            value = definition.make(*[
                execution[need] if need in execution
                else self.input(need, data, sae) if self.identities.available(need, data)
                else None
                for need in definition.needs
            ])  # fmt: skip
            if data is not None and "data" in definition.needs:  # it may have read files
                self.identities.check_data(data)
            return value

        def stored() -> Any:
            if definition.save is None or definition.load is None:
                return make()
            save = definition.save
            owner = sae.name if sae is not None else data.name if data else "no data"
            title = f"{name} of {owner}"

            def write(draft: Path) -> None:
                value = make(draft)
                with self.store.writing():
                    save(value, draft)

            return self._artefact(key, write, definition.load, title)

        return self._in_memory(key, stored, where=None if data is None else data.where)

    def sae(self, spec: SaeSpec, data: DataSpec | None) -> CanonicalSAE:
        """The canonical SAE of a spec: loaded, or trained first if the store does not have it."""
        key = self.identities.sae(spec, data)
        loaded: CanonicalSAE = self._in_memory(
            f"{key}/{self.execution.device}",
            lambda: spec.source.load(self._request(spec, data)),
            where=spec.where,
        )
        return loaded

    def named(self, text: str) -> CanonicalSAE:
        """The SAE that a setting names; a BatchTopK SAE may have no threshold yet."""
        source = Checkpoint(Ref.parse(text), self.registry)

        def load() -> CanonicalSAE:
            sae = source.as_stored()
            normalize = source.describe().normalize
            if normalize != "none":
                raise CanonError(
                    f"'{text}' normalises its input ({normalize}), which an SAE that a setting "
                    "names must not do"
                )
            return sae

        named: CanonicalSAE = self._in_memory(
            f"named {self.identities.named(text)}", load, where=None
        )
        return named

    def training(self, spec: SaeSpec, data: DataSpec | None) -> Mapping[str, Any] | None:
        """How an SAE's training went; None for an SAE that was not trained here."""
        return spec.source.trained(self._request(spec, data))

    def _request(self, spec: SaeSpec, data: DataSpec | None) -> Request:
        def artefact(make: Callable[[Path], None]) -> Path:
            key = self.identities.sae(spec, data)
            return self.store.artefact(key, make, title=f"training of {spec.name}")

        reads = self.identities.read_by(spec, data)
        return Request(
            self.execution.device, spec.dtype, data, lambda name: self.input(name, reads), artefact
        )

    def memo(
        self, key: Mapping[str, Any], make: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        """Numbers that depend on the key alone, computed once for all cases and runs."""

        def write(folder: Path) -> None:
            text = json.dumps(make())
            with self.store.writing():
                (folder / "memo.json").write_text(text, encoding="utf-8")

        def read(folder: Path) -> dict[str, float]:
            numbers: dict[str, float]
            numbers = json.loads((folder / "memo.json").read_text(encoding="utf-8"))
            return numbers

        title = f"the null {key.get('name', '')}".strip()
        return self._artefact(fingerprint({"memo": dict(key)}), write, read, title)

    def keep(
        self, key: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """Tensors that depend on the key alone, computed once for all cases and runs."""
        from safetensors.torch import load_file, save_file

        def write(folder: Path) -> None:
            tensors = {name: tensor.contiguous() for name, tensor in make().items()}
            with self.store.writing():
                save_file(tensors, folder / TENSORS)

        def read(folder: Path) -> Mapping[str, Tensor]:
            tensors: dict[str, Tensor] = load_file(folder / TENSORS)
            return tensors

        title = str(key.get("name", "tensors"))
        return self._artefact(fingerprint({"keep": dict(key)}), write, read, title)

    def _artefact(
        self, key: str, make: Callable[[Path], None], load: Callable[[Path], T], title: str
    ) -> T:
        """The content of an artefact: computed if it is missing or damaged."""
        for _ in range(2):
            folder = self.store.artefact(key, make, title=title)
            try:
                with self.store.reading():
                    return load(folder)
            except (StoreError, MemoryError):
                raise  # says nothing of the files
            except Exception:  # formats raise many kinds of errors
                self.store.drop_artefact(key)
        raise CanonError(f"the {title} cannot be read back from {self.store.root}")

    def _in_memory(self, key: str, make: Callable[[], Any], *, where: str | None) -> Any:
        """The value in memory, made if it is missing; a failure is raised again, not retried."""
        if key in self._failed:
            raise self._failed[key]
        if key not in self._values:
            try:
                with placed(where):
                    self._values[key] = make()
            except Exception as error:
                self._failed[key] = error
                raise
            while len(self._values) > IN_MEMORY:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]
