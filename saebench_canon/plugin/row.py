"""What tables are made of: one score of one case, exactly as `show --json` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from saebench_canon.plugin.metric import Mark, Of
from saebench_canon.plugin.published import Published

Status = Literal["measured", "undefined", "failed", "missing"]
Axis = str | int | float | bool

FACTS = frozenset({"train_tokens"})  # what a member may say of itself that is no axis


@dataclass(frozen=True)
class Row:
    """One score of one case: what was measured, on which SAEs, and how that went."""

    label: str
    metric: str
    score: str | None  # None: the case failed or is missing as a whole
    subject: tuple[str, ...]
    status: Status
    value: float | None = None
    stderr: float | None = None
    n: int | None = None
    unit: str | None = None
    suite: str = ""
    axes: Mapping[str, Any] | None = None
    seed: int | None = None
    settings: Mapping[str, Any] | None = None
    id: str | None = None
    of: Of = "sae"
    over: str = "each"
    marks: tuple[Mark, ...] = ()
    reason: str | None = None
    members: tuple[Mapping[str, Any], ...] = ()
    data: str | None = None
    reference: Published | None = None

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Row:
        """A row read from `show --json`; keys that tables have no use for are left out."""
        known = {key: row[key] for key in cls.__dataclass_fields__ if key in row}
        known["subject"] = tuple(row["subject"])
        known["members"] = tuple(dict(member) for member in row.get("members") or ())
        known["marks"] = tuple(
            Mark(kind=mark["kind"], reason=mark["reason"]) for mark in row.get("marks") or ()
        )
        if not known["members"] and len(known["subject"]) == 1 and row.get("axes"):
            known["members"] = (dict(row["axes"]),)
        if reference := row.get("reference"):
            known["reference"] = Published(reference["value"], reference["source"])
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """The row as `show --json` prints it."""
        row = {key: getattr(self, key) for key in self.__dataclass_fields__}
        told = row.pop("reference")
        row |= {} if told is None else {"reference": asdict(told)}
        return row | {
            "axes": dict(self.axes or {}),
            "settings": dict(self.settings or {}),
            "subject": list(self.subject),
            "members": [dict(member) for member in self.members],
            "marks": [{"kind": mark.kind, "reason": mark.reason} for mark in self.marks],
        }

    def along(self, axis: str) -> tuple[Axis, ...]:
        """The members' values of an axis, in the members' order, each once."""
        return tuple(dict.fromkeys(each[axis] for each in self.members if axis in each))

    def shared(self) -> dict[str, Axis]:
        """The axis values that all members have in common."""
        if not self.members:
            return {}
        first, *others = self.members
        return {
            axis: value
            for axis, value in first.items()
            if axis not in FACTS and all(other.get(axis) == value for other in others)
        }
