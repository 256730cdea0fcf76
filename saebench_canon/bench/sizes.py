"""How large the data and SAEs of a suite are, as far as is known offline and without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.data import DataSize
from saebench_canon.saes.memory_needed import ITEM
from saebench_canon.suite.specs import SaeSpec, Suite

L0_SHARE = 1 / 16  # of d, if the number of active latents is unknown


@dataclass(frozen=True)
class SaeSize:
    """An SAE: d, width, L0, and bytes to download."""

    d: int | None
    width: int | None
    l0: float = 0.0
    download: int | None = 0  # None: unknown
    l0_assumed: bool = False

    @property
    def entries(self) -> int | None:
        """Numbers in encoder and decoder."""
        return None if self.d is None or self.width is None else 2 * self.d * self.width


def sizes_of(suite: Suite) -> tuple[dict[str, DataSize], dict[str, SaeSize]]:
    """The known sizes of data tables and SAEs, by name."""
    described = {sae.name: _described(sae) for sae in suite.saes}
    data = {}
    for name, spec in suite.data.items():
        widths = [described[sae.name].d for sae in suite.saes if sae.data == name]
        size = spec.source.size(spec)
        d = next((d for d in (size.d, *widths) if d is not None), None)
        data[name] = replace(size, d=d, scored=_scored(size.tokens, spec.holdout))
    known = {description.d for description in described.values() if description.d is not None}
    saes = {}
    for sae in suite.saes:
        description = described[sae.name]
        d = description.d
        if d is None:
            d = data[sae.data].d if sae.data else min(known) if len(known) == 1 else None
        saes[sae.name] = _sae_size(sae, d, description.width, description.k)
    return data, saes


def _described(sae: SaeSpec) -> Description:
    """An SAE's description, with its width from the axes if the checkpoint does not say it."""
    axis = sae.axes.get("width")
    width = axis if type(axis) is int else None
    try:
        description = sae.source.describe()
    except CanonError:  # not in the cache, or damaged, which is reported elsewhere
        return Description(None, width, "")
    return description if description.width is not None else replace(description, width=width)


def _sae_size(sae: SaeSpec, d: int | None, width: int | None, k: float | None) -> SaeSize:
    l0 = float(k) if k is not None else L0_SHARE * (d or 0)
    size = SaeSize(d, width, l0, l0_assumed=k is None)
    weights = None if size.entries is None else size.entries * ITEM["float32"]
    return replace(size, download=sae.source.to_download(weights))


def _scored(tokens: int | None, holdout: float | None) -> int | None:
    return tokens if tokens is None or holdout is None else round(holdout * tokens)
