"""An SAE source: what one SAE of a suite is and how it is had, whatever it is made of."""

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
    """How an SAE is wanted, and what its source may ask for while it loads or trains it."""

    device: str
    dtype: str
    data: DataSpec | None  # what the SAE is measured on, and trained or calibrated on
    input: Callable[[str], Any]  # an input of that data, by name
    artefact: Callable[[Callable[[Path], None]], Path]  # this SAE's kept folder, made if need be


class SaeSource(Protocol):
    """One SAE: a checkpoint, a training, or an object in memory."""

    @property
    def ref(self) -> str:
        """How records and tables name it."""

    @property
    def local(self) -> bool:
        """Whether it can be described without asking a hub."""

    @property
    def training(self) -> Mapping[str, Any] | None:
        """The settings of the training that makes it; None for what is there already."""

    def describe(self) -> Description:
        """What it says of itself, without weights; read once, however often it is asked."""

    def identity(self, data: DataSpec | None, of_input: Callable[[str], str]) -> Mapping[str, Any]:
        """What makes it this SAE, as plain data; `of_input` gives the identity of data's inputs."""

    def load(self, request: Request) -> CanonicalSAE:
        """The SAE in canonical form; one that lacks a threshold gets it from the data."""

    def trained(self, request: Request) -> Mapping[str, Any] | None:
        """How its training went: tokens seen, passes over the data, steps, last loss."""

    def check_fits(self, dtype: str) -> None:
        """Raises CanonError if this machine cannot hold it, before any of it is read."""

    def to_download(self, weights: int | None) -> int | None:
        """Bytes that a hub still has to send, of so many bytes of weights; None: nobody knows."""

    def commit(self) -> str | None:
        """The commit of the hub's repository that the local cache holds of it, if any."""
