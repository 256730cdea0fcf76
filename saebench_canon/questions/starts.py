"""Which SAEs of one size began from the same rows?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saebench_canon.plugin.row import Axis

LEAST, SHARE = 7, 0.10  # mutual pairs of one number, and their share of all mutual pairs
FEWEST = 16  # live latents; with fewer nothing is known


@dataclass(frozen=True)
class Met:
    """How the latents of two SAEs meet: live latents of the smaller, mutual pairs, equal numbers.

    `in_order` says that both SAEs' latents are sorted, so that equal numbers say nothing.
    """

    live: int
    mutual: int
    same_index: int
    in_order: bool

    @property
    def same_start(self) -> bool:
        """Whether both began from the same rows; by chance about one pair has one number."""
        return (
            self.known
            and self.same_index >= LEAST
            and self.same_index >= SHARE * max(self.mutual, 1)
        )

    @property
    def known(self) -> bool:
        """Whether the numbers of latents can tell."""
        return self.live >= FEWEST and not self.in_order


def components(
    sizes: Mapping[Axis, Sequence[str]], met: Mapping[tuple[str, str], Met]
) -> tuple[dict[Axis, tuple[tuple[str, ...], ...]], frozenset[str]]:
    """The starts of each size, each with its SAEs, and the SAEs whose start is not known."""
    starts: dict[Axis, tuple[tuple[str, ...], ...]] = {}
    unknown: set[str] = set()
    for size, names in sizes.items():
        groups: list[list[str]] = []
        for name in names:
            pairs = {other: met.get((other, name)) or met.get((name, other)) for other in names}
            unknown |= {name for pair in pairs.values() if pair is not None and not pair.known}
            twins = [
                group
                for group in groups
                if any((pair := pairs[other]) is not None and pair.same_start for other in group)
            ]
            merged = [other for group in twins for other in group]
            groups = [group for group in groups if group not in twins] + [[*merged, name]]
        position = {name: at for at, name in enumerate(names)}
        groups = [sorted(group, key=position.__getitem__) for group in groups]
        starts[size] = tuple(
            tuple(group) for group in sorted(groups, key=lambda group: position[group[0]])
        )
    return starts, frozenset(unknown)
