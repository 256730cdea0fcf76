"""An SAE source: how one SAE of a suite is described, identified and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from saebench_canon.plugin.adapter import Description
    from saebench_canon.plugin.data import DataSpec
    from saebench_canon.plugin.sae import CanonicalSAE


@dataclass(frozen=True, eq=False)
class Request:
    """How an SAE is to be loaded, and what its source may use to load or train it."""

    device: str
    dtype: str
    data: DataSpec | None  # what the SAE is measured on, and trained or calibrated on
    input: Callable[[str], Any]  # an input of that data, by name
    artefact: Callable[
        [Callable[[Path], None]], Path
    ]  # this SAE's folder in the store, made if it is missing


class SaeSource(Protocol):
    """One SAE: a checkpoint, a training, or an object in memory."""

    @property
    def ref(self) -> str:
        """Its name in records and tables."""

    @property
    def local(self) -> bool:
        """Whether it can be described without a hub."""

    @property
    def training(self) -> Mapping[str, Any] | None:
        """The settings of the training that makes it; None for a finished SAE."""

    def describe(self) -> Description:
        """Its description, without weights; read once."""

    def identity(self, data: DataSpec | None, of_input: Callable[[str], str]) -> Mapping[str, Any]:
        """What it depends on, as plain data; `of_input` gives the identity of the data's inputs."""

    def load(self, request: Request) -> CanonicalSAE:
        """The SAE in canonical form; a missing threshold is calibrated on the data."""

    def trained(self, request: Request) -> Mapping[str, Any] | None:
        """How its training went: tokens, passes over the data, steps, last loss."""

    def check_fits(self, dtype: str) -> None:
        """Raises CanonError if it is larger than this machine's memory, before it is read."""

    def to_download(self, weights: int | None) -> int | None:
        """Bytes to download, of `weights` bytes in total; None if unknown."""

    def commit(self) -> str | None:
        """The commit of the hub's repository in the local cache, if there is one."""
