"""The cases of a run by name, and rows: one score of such a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from saebench_canon.plugin.metric import Mark, Of, Unit
from saebench_canon.plugin.published import Published

Status = Literal["measured", "undefined", "failed", "missing"]
Axis = str | int | float | bool

FACTS = frozenset({"train_tokens", "recorded"})  # keys of a member that are not axes


@dataclass(frozen=True, kw_only=True)
class ListedCase:
    """A case by its names and axes, which are in the run file and not in the record."""

    label: str
    metric: str
    subject: tuple[str, ...]
    suite: str = ""
    title: str = ""
    version: int | None = None
    axes: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None
    of: Of = "sae"
    over: str = "each"
    members: tuple[Mapping[str, Any], ...] = ()
    data: str | None = None
    references: Mapping[str, Published] = field(default_factory=dict)  # by score

    @classmethod
    def from_json(cls, case: Mapping[str, Any]) -> ListedCase:
        """The case of an entry in a run file; raises ValueError for one that contradicts itself."""
        listed = cls(**_fields_of(ListedCase, case))
        if listed.members and len(listed.members) != len(listed.subject):
            raise ValueError(f"{len(listed.subject)} SAEs have {len(listed.members)} entries")
        for member in listed.members:
            if any(isinstance(v, dict) for name, v in member.items() if name not in FACTS):
                raise ValueError("an axis has an object as its value")
        return listed

    def to_json(self) -> dict[str, Any]:
        """The case as an entry in a run file; without `references` if there are none."""
        case = {name: getattr(self, name) for name in _JSON_ORDER}
        case |= {"subject": list(self.subject), "axes": dict(self.axes)}
        case |= {"members": [dict(member) for member in self.members]}
        case |= {"settings": dict(self.settings)}
        references = {score: asdict(value) for score, value in self.references.items()}
        return case | ({"references": references} if references else {})

    def along(self, axis: str) -> tuple[Axis, ...]:
        """The members' values of an axis, in the members' order, each once."""
        return tuple(dict.fromkeys(member[axis] for member in self.members if axis in member))

    def shared(self) -> dict[str, Axis]:
        """The axis values that all members have in common."""
        if not self.members:
            return {}
        first, *rest = self.members
        return {
            axis: value
            for axis, value in first.items()
            if axis not in FACTS and all(member.get(axis) == value for member in rest)
        }

    def __str__(self) -> str:
        return (", " if self.of == "group" else " → ").join(self.subject)


_JSON_ORDER = (
    "id", "suite", "label", "title", "metric", "version", "of", "over", "subject", "axes",
    "members", "data", "seed", "settings",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row(ListedCase):
    """One score of a case, as `show --json` prints it: its status and its value."""

    score: str | None  # None: the whole case failed or is missing
    status: Status
    value: float | None = None
    stderr: float | None = None
    n: int | None = None
    unit: Unit | None = None
    marks: tuple[Mark, ...] = ()
    reason: str | None = None

    @classmethod
    def of_case(cls, case: ListedCase, *, score: str | None, status: Status, **result: Any) -> Row:
        """The row of one score of a case."""
        names = {entry.name: getattr(case, entry.name) for entry in fields(ListedCase)}
        return cls(**names, score=score, status=status, **result)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Row:
        """A row read from `show --json`; unknown keys are ignored."""
        values = _fields_of(cls, row)
        values["marks"] = tuple(Mark(**mark) for mark in row.get("marks") or ())
        if not values.get("members") and len(values["subject"]) == 1 and row.get("axes"):
            values["members"] = (dict(row["axes"]),)
        if reference := row.get("reference"):
            values["references"] = {str(row["score"]): Published(**reference)}
        return cls(**values)

    @property
    def reference(self) -> Published | None:
        """The published value of this score."""
        return self.references.get(self.score or "")

    def to_dict(self) -> dict[str, Any]:
        """The row as `show --json` prints it."""
        row = {name: getattr(self, name) for name in _ROW_ORDER}
        row |= {} if self.reference is None else {"reference": asdict(self.reference)}
        return row | {
            "axes": dict(self.axes),
            "settings": dict(self.settings),
            "subject": list(self.subject),
            "members": [dict(member) for member in self.members],
            "marks": [{"kind": mark.kind, "reason": mark.reason} for mark in self.marks],
        }


_ROW_ORDER = (
    "label", "metric", "score", "subject", "status", "value", "stderr", "n", "unit", "suite",
    "axes", "seed", "settings", "id", "of", "over", "marks", "reason", "members", "data",
)  # fmt: skip


def _fields_of(kind: type[ListedCase], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass that a JSON object has, lists as tuples."""
    values = {known.name: entry[known.name] for known in fields(kind) if known.name in entry}
    values["subject"] = tuple(entry["subject"])
    values["members"] = tuple(dict(member) for member in entry.get("members") or ())
    values["axes"] = dict(entry.get("axes") or {})
    values["settings"] = dict(entry.get("settings") or {})
    references = entry.get("references") or {}
    values["references"] = {score: Published(**value) for score, value in references.items()}
    return values
