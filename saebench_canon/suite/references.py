"""Reading the [[reference]] tables of a suite, and finding the cases of published values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from saebench_canon.errors import CanonError, known_names, nearest
from saebench_canon.plugin.published import Published
from saebench_canon.plugin.registry import Registry
from saebench_canon.suite.axes import AxisValue, condition
from saebench_canon.suite.cases import Case
from saebench_canon.suite.metrics import spec_of_score
from saebench_canon.suite.specs import MetricSpec, ReferenceSpec, SaeSpec, Suite
from saebench_canon.suite.toml_table import TomlTable


def parse_reference(
    table: TomlTable, saes: Sequence[SaeSpec], metrics: Sequence[MetricSpec], registry: Registry
) -> ReferenceSpec:
    """The published values that a [[reference]] table gives, for a suite with these SAEs."""
    where = table.where
    score, axis = table.take("score", str), table.take("axis", str)
    values, source = table.take("values", dict), table.take("source", str)
    conditions = table.take("where", dict, {})
    table.finish()
    spec_of_score(score, metrics, registry, where)
    axes = sorted({name for sae in saes for name in sae.axes})
    for name in (axis, *conditions):
        if name not in axes:
            raise CanonError(f"no SAE has the axis '{name}'", where=where, hint=nearest(name, axes))
    if not values:
        raise CanonError("'values' is empty", where=where)
    if not source.strip():
        raise CanonError("'source' is empty", where=where, hint="Say who published the values.")
    known = [sae.axes[axis] for sae in saes if axis in sae.axes]
    return ReferenceSpec(
        score=score,
        axis=axis,
        values={
            _axis_value(key, known, axis, where): _number(key, value, where)
            for key, value in values.items()
        },
        source=source.strip(),
        where=where,
        conditions={name: condition(text, where=where) for name, text in conditions.items()},
    )


def _axis_value(key: str, known: Sequence[AxisValue], axis: str, where: str) -> AxisValue:
    """A key, which TOML reads as a string, as a value of the axis.

    A value that no SAE has is allowed: a suite may measure a part of a published ladder.
    """
    written = {str(value).lower() if type(value) is bool else str(value): value for value in known}
    if key in written:
        return written[key]
    kinds = {type(value) for value in known}
    if kinds <= {int, float}:
        with suppress(ValueError):
            return float(key.replace("_", ""))  # as a key it equals the same whole number
    elif str in kinds:
        return key
    raise CanonError(
        f"'{key}' is no value of the axis '{axis}'", where=where, hint=nearest(key, written)
    )


def _number(key: str, value: Any, where: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise CanonError(f"the value at '{key}' must be a number, got {value!r}", where=where,
                         hint="Leave out what was not published.")  # fmt: skip
    return value  # type: ignore[no-any-return]


def published(references: Sequence[ReferenceSpec], case: Case) -> dict[str, Published]:
    """The published values of a case by score, each with its source."""
    values: dict[str, Published] = {}
    for reference in references:
        label, _, score = reference.score.partition(".")
        if label != case.label or (value := _value(reference, case)) is None:
            continue
        if score in values:
            raise CanonError(
                f"two published values of {reference.score} for {case.name}", where=reference.where,
                hint="Separate them by 'where', or keep one.",
            )  # fmt: skip
        values[score] = Published(value, reference.source)
    return values


def _value(reference: ReferenceSpec, case: Case) -> float | None:
    """The value for the case's last SAE (the larger of a pair), if all its SAEs satisfy `where`."""
    if not all(
        axis in sae.axes and holds(sae.axes[axis])
        for sae in case.subject
        for axis, holds in reference.conditions.items()
    ):
        return None
    return reference.values.get(case.subject[-1].axes.get(reference.axis))  # type: ignore[arg-type]


def check_references(suite: Suite, cases: Sequence[Case]) -> None:
    """Raise CanonError for published values that match no case, and for two values of one case."""
    for case in cases:
        published(suite.references, case)
    for reference in suite.references:
        if not any(published([reference], case) for case in cases):
            values = list(dict.fromkeys(_values(reference.axis, cases)))
            raise CanonError(
                f"no case of {reference.score} has one of these values of '{reference.axis}'",
                where=reference.where, hint=known_names(values),
            )  # fmt: skip


def _values(axis: str, cases: Sequence[Case]) -> Iterator[str]:
    return (f"{case.subject[-1].axes[axis]}" for case in cases if axis in case.subject[-1].axes)
