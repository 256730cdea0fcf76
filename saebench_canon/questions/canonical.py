"""Which latents of an SAE pass all tests of being canonical? (ours)"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saebench_canon.kernels.sum_rule import SLACK
from saebench_canon.plugin.row import Axis
from saebench_canon.plugin.table_line import Block
from saebench_canon.questions.judged import line_of
from saebench_canon.questions.kinship import Kin, View, kin_of
from saebench_canon.questions.relations import Bools, Family, Floats, Relation

Ints = NDArray[np.int64]

if TYPE_CHECKING:
    import pandas as pd

MOST = 0.5  # share of the larger, or smaller, SAEs of which a latent must be a sum to be no unit
COLUMNS = (
    "sae", "latent", "found_in", "above", "below", "sum_of_larger", "sum_of_smaller", "sum_of_own",
    "twin_of", "canonical",
)  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """The SAEs that one SAE was held against: other starts of its size, and other sizes."""

    others: tuple[str, ...]
    larger: tuple[str, ...]
    smaller: tuple[str, ...]

    @property
    def confirms(self) -> bool:
        """Whether there is another start or a larger SAE to find latents again."""
        return bool(self.others or self.larger)


@dataclass(frozen=True, eq=False)
class Listed:
    """An SAE's latents, each with the tests that it passes; a row a live latent, as `COLUMNS`.

    `tests_own` says whether sums of the SAE's own latents were looked for.
    """

    table: pd.DataFrame
    against: Compared
    tests_own: bool

    @property
    def count(self) -> int:
        """How many latents are canonical."""
        return int(self.table["canonical"].sum())

    @property
    def canonical_latents(self) -> list[int]:
        """The numbers of the canonical latents."""
        return [int(latent) for latent in self.table["latent"][self.table["canonical"]]]


def listed(kin: Kin, sae: str, size: Axis, *, without: Collection[str] = ()) -> Listed | None:
    """The tests of one SAE's latents; None where it was not compared.

    A latent is canonical iff every other start finds it, or a larger SAE does; and it is no sum of
    own latents, nor of those of half or more of the larger or of the smaller SAEs; and it stands
    for its duplicates. A sum explains the share `least` of it, not raised, and about as much as its
    twins in other starts do, or else in larger SAEs. With neither another start nor a larger SAE no
    latent is canonical. The SAEs of `without` say nothing: those that are not fit to be judged.
    """
    against = compared_with(kin, sae, size, without=without)
    view = kin.views((sae, *against.others, *against.larger, *against.smaller))[-1]
    latents = view.latents.get(sae)
    if latents is None:
        return None
    level = _level(view, sae, against)
    family, count = view.family, len(latents)

    def finders(names: Sequence[str]) -> Ints:
        return _count([family.found(sae, name) for name in names], count)

    def sums(names: Sequence[str]) -> Ints:
        relations = (family.relations[sae, name] for name in names)
        return _count([_sums(family, relation, level) for relation in relations], count)

    tests_own = sae in view.own
    of_own = _sums(family, view.own[sae], level) if tests_own else np.zeros(count, dtype=bool)
    found_in, above = finders(against.others), finders(against.larger)
    larger, smaller = sums(against.larger), sums(against.smaller)
    confirmed = (above > 0) | ((found_in == len(against.others)) & bool(against.others))
    whole = ~of_own & ~_mostly(larger, against.larger) & ~_mostly(smaller, against.smaller)
    columns = {
        "found_in": found_in, "above": above, "below": finders(against.smaller),
        "sum_of_larger": larger, "sum_of_smaller": smaller, "sum_of_own": of_own,
        "canonical": confirmed & whole,
    }  # fmt: skip
    table = _table(sae, latents, columns, kin.twins.get(sae, {}))
    return Listed(table, against, tests_own)


def list_of(block: Block, sae: str) -> Listed | None:
    """The tests of an SAE's latents in a block; None where it is not there, or was not compared."""
    kin = kin_of(block)
    for size, names in ({} if kin is None else kin.sizes).items():
        if kin is not None and sae in names:
            return listed(kin, sae, size, without=unfit_saes(block, kin))
    return None


def unfit_saes(block: Block, kin: Kin) -> frozenset[str]:
    """The SAEs that are not fit to be judged."""
    return frozenset(
        name
        for size, names in kin.sizes.items()
        for name in names
        if block.reasons("unfit", line_of(block, (size,), [name]))
    )


def compared_with(kin: Kin, sae: str, size: Axis, *, without: Collection[str] = ()) -> Compared:
    """The SAEs that an SAE was compared with; of twins one counts, and its own twins do not."""
    start_of_sae = next(start for start in kin.starts[size] if sae in start)
    views = [kin.raw, kin.centred] if kin.shared else [kin.raw]

    def known(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(
            name
            for name in names
            if name not in without and all((sae, name) in view.family.relations for view in views)
        )

    sizes = list(kin.sizes)
    at = sizes.index(size)
    larger = [name for width in sizes[at + 1 :] for name in kin.of(width)]
    smaller = [name for width in sizes[:at] for name in kin.of(width)]
    others = [start[0] for start in kin.starts[size] if start != start_of_sae]
    return Compared(known(others), known(larger), known(smaller))


def _level(view: View, sae: str, against: Compared) -> Floats | None:
    """What a sum must explain of each latent, from its twins: a mean over those that find it [n].

    nan where nothing finds it; None with nothing to find it.
    """
    squares = [
        view.family.twin_square(sae, names) for names in (against.others, against.larger) if names
    ]
    if not squares:
        return None
    first, *rest = squares
    for other in rest:
        first = np.where(np.isnan(first), other, first)
    return first - SLACK


def _sums(family: Family, relation: Relation, level: Floats | None) -> Bools:
    return relation.sums(family.least, level, gain=family.gain)


def _count(passes: Sequence[Bools], size: int) -> Ints:
    """How many of the SAEs say so of each latent [n]."""
    return np.sum(passes, axis=0, dtype=np.int64) if passes else np.zeros(size, dtype=np.int64)


def _mostly(counts: Ints, names: Sequence[str]) -> Bools:
    """Which latents are sums of half or more of these SAEs' latents [n]; none without any."""
    return (counts >= MOST * len(names)) & bool(names)


def _table(
    sae: str, latents: Ints, columns: dict[str, Ints | Bools], twins: Mapping[int, int]
) -> pd.DataFrame:
    """A row for each live latent; a duplicate has no tests of its own, and is not canonical.

    A latent that is nothing but the direction that rows share is not there.
    """
    import pandas as pd

    table = pd.DataFrame({"sae": sae, "latent": latents, "twin_of": -1, **columns})
    doubles = pd.DataFrame({"sae": sae, "latent": list(twins), "twin_of": list(twins.values())})
    if len(doubles):
        tested = table.set_index("latent").reindex(doubles["twin_of"]).reset_index(drop=True)
        same = [name for name in columns if name != "canonical"]
        doubles = doubles.join(tested[same]).assign(canonical=False)
        table = pd.concat([table, doubles.dropna()], ignore_index=True)
    kinds = {name: values.dtype for name, values in columns.items()}
    return table.astype(kinds).sort_values("latent", ignore_index=True)[list(COLUMNS)]
