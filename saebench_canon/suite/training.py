"""An SAE that a suite trains: a trainer with its settings. The store keeps the trained SAE."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry
from saebench_canon.plugin.trainer import Trainer
from saebench_canon.saes.memory_needed import check_memory, sae_bytes
from saebench_canon.saes.source import Checkpoint

if TYPE_CHECKING:
    from saebench_canon.plugin.data import DataSpec
    from saebench_canon.plugin.sae import CanonicalSAE
    from saebench_canon.plugin.source import Request

LOG = "training.json"  # how the training went, in the folder of a trained SAE


@dataclass(frozen=True, eq=False)
class Training:
    """An SAE to train: the trainer and every setting, defaults included."""

    trainer: Trainer
    width: int
    seed: int
    training: Mapping[str, Any]
    registry: Registry = field(repr=False)

    @property
    def ref(self) -> str:
        """Architecture, width and seed."""
        return f"train:{self.trainer.name}/{self.width}/{self.seed}"

    @property
    def local(self) -> bool:
        """Always true: nothing is downloaded."""
        return True

    def describe(self) -> Description:
        """Width, architecture and k, from the suite; d is unknown before its data is read."""
        return Description(
            d=None, width=self.width, architecture=self.trainer.name, k=self.training.get("k"),
            metadata={**self.training, "seed": self.seed},
        )  # fmt: skip

    def identity(self, data: DataSpec | None, of_input: Callable[[str], str]) -> Mapping[str, Any]:
        """Everything that the training depends on."""
        return {
            "trainer": self.trainer.name,
            "version": self.trainer.version,
            "width": self.width,
            "seed": self.seed,
            "settings": dict(self.training),
            "data": of_input("train_acts"),
        }

    def load(self, request: Request) -> CanonicalSAE:
        """The SAE, trained first if the store does not have it."""
        ref = Ref("saelens", str(self._folder(request)), local=True)
        return Checkpoint(ref, self.registry).load(request)

    def trained(self, request: Request) -> Mapping[str, Any]:
        """How the training went."""
        text = (self._folder(request) / LOG).read_text(encoding="utf-8")
        outcome: dict[str, Any] = json.loads(text)
        return outcome

    def check_fits(self, dtype: str) -> None:
        """Raise CanonError for a width that is larger than memory whatever d is."""
        check_memory(
            sae_bytes(1, self.width, dtype), f"an SAE of {self.width} latents", where=self.ref
        )

    def to_download(self, weights: int | None) -> int:
        """0 bytes."""
        return 0

    def commit(self) -> None:
        """None: a trained SAE is in no repository."""

    def _folder(self, request: Request) -> Path:
        """The SAE's folder in SAELens' format; it is trained now if the store does not have it."""

        def make(folder: Path) -> None:
            acts = request.input("train_acts")
            outcome = self.trainer.train(
                acts, folder, width=self.width, seed=self.seed, **dict(self.training)
            )
            text = json.dumps(asdict(outcome), sort_keys=True)
            (folder / LOG).write_text(text, encoding="utf-8")

        return request.artefact(make)
