"""Which SAEs of a run count as seeds of one another, and whether their files allow it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from saebench_canon.plugin.row import FACTS, Axis, Row
from saebench_canon.plugin.training_facts import Facts, no_seeds, seeds_recorded

SEED = "seed"


@dataclass
class SeedGroup:
    """SAEs whose axes differ in `seed` only: by name, what their files record."""

    size: Axis | None
    recorded: dict[str, Facts] = field(default_factory=dict)

    @property
    def reason(self) -> str | None:
        """Why they are no seeds of one another; None if they may be."""
        return no_seeds(list(self.recorded.values()))

    @property
    def unknown(self) -> bool:
        """Whether nothing speaks against seeds, and a seed is not recorded."""
        return self.reason is None and not seeds_recorded(list(self.recorded.values()))


def seed_groups(rows: Iterable[Row], axis: str) -> list[SeedGroup]:
    """The groups of several SAEs in these rows; `axis` gives a group's size.

    SAEs of runs that did not note what files record are in no group.
    """
    groups: dict[tuple[tuple[str, Axis], ...], SeedGroup] = {}
    for row in rows:
        for name, member in zip(row.subject, row.members, strict=False):
            if SEED in member and isinstance(member.get("recorded"), Mapping):
                group = groups.setdefault(_others(member), SeedGroup(member.get(axis)))
                group.recorded[name] = member["recorded"]
    return [group for group in groups.values() if len(group.recorded) > 1]


def _others(member: Mapping[str, Axis]) -> tuple[tuple[str, Axis], ...]:
    """The axes of an SAE without its seed."""
    return tuple((name, v) for name, v in sorted(member.items()) if name not in (*FACTS, SEED))


def reasons_by_sae(groups: Iterable[SeedGroup]) -> dict[str, str]:
    """The SAEs of groups that are no seeds, each with the reason."""
    return {
        name: f"no seeds of one another: {group.reason}"
        for group in groups
        if group.reason is not None
        for name in group.recorded
    }
