"""An input: a value that metrics take by name, content-addressed and computed once.

    @made(per="sae", version=1)
    def firing_times(codes):
        return codes.counts

The function's positional parameters are the inputs it needs; `data` is the data's specification and
`sae` the canonical SAE; `device`, `batch_size` and `folder` (where an input may write its file)
say how to compute. With `save` and `load` it is kept in the store, otherwise only in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saebench_canon.errors import CanonError
from saebench_canon.plugin.signature import signature_of

if TYPE_CHECKING:
    from saebench_canon.plugin.data import DataSpec

Per = Literal["data", "sae"]


@dataclass(frozen=True)
class Input:
    """A named, versioned function from other inputs to one value, per data source or per SAE."""

    name: str
    per: Per
    version: int
    make: Callable[..., Any]
    needs: tuple[str, ...]
    optional: frozenset[str]
    save: Callable[[Any, Path], None] | None
    load: Callable[[Path], Any] | None
    available: Callable[[DataSpec], bool]
    identity: Callable[[DataSpec], Mapping[str, Any]]
    help: str


def _always(data: DataSpec) -> bool:
    return True


def _nothing(data: DataSpec) -> Mapping[str, Any]:
    return {}


def made(
    *,
    per: Per,
    version: int,
    name: str | None = None,
    save: Callable[[Any, Path], None] | None = None,
    load: Callable[[Path], Any] | None = None,
    available: Callable[[DataSpec], bool] = _always,
    identity: Callable[[DataSpec], Mapping[str, Any]] = _nothing,
) -> Callable[[Callable[..., Any]], Input]:
    """Make an input of a function.

    `available` says for which data it can be computed. `identity` adds settings of the data that
    the input depends on, besides those of the inputs it needs.
    """

    def decorate(function: Callable[..., Any]) -> Input:
        declared = signature_of(function, "input", name)
        if declared.settings:
            raise CanonError(
                f"input '{declared.name}' takes '{next(iter(declared.settings))}' by keyword only",
                hint="An input has no settings; its positional parameters are other inputs.",
            )
        return Input(
            name=declared.name,
            per=per,
            version=version,
            make=function,
            needs=declared.inputs,
            optional=declared.optional,
            save=save,
            load=load,
            available=available,
            identity=identity,
            help=declared.help,
        )

    return decorate
