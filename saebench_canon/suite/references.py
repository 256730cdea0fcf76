"""Reading the [[reference]] tables of a suite, and which cases each published value belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from saebench_canon.errors import CanonError, known_names, nearest
from saebench_canon.plugin.registry import Registry
from saebench_canon.suite.axes import AxisValue, condition
from saebench_canon.suite.cases import Case
from saebench_canon.suite.metrics import spec_of_score
from saebench_canon.suite.specs import MetricSpec, ReferenceSpec, SaeSpec, Suite
from saebench_canon.suite.toml_table import Table


def parse_reference(
    table: Table, saes: Sequence[SaeSpec], metrics: Sequence[MetricSpec], registry: Registry
) -> ReferenceSpec:
    """The published values that a [[reference]] table gives, for a suite with these SAEs."""
    where = table.where
    score, axis = table.take("score", str), table.take("axis", str)
    given, source = table.take("values", dict), table.take("source", str)
    wanted = table.take("where", dict, {})
    table.finish()
    spec_of_score(score, metrics, registry, where)
    axes = sorted({each for sae in saes for each in sae.axes})
    for each in (axis, *wanted):
        if each not in axes:
            raise CanonError(f"no SAE has the axis '{each}'", where=where, hint=nearest(each, axes))
    if not given:
        raise CanonError("'values' is empty", where=where)
    if not source.strip():
        raise CanonError("'source' is empty", where=where, hint="It says who published the values.")
    known = [sae.axes[axis] for sae in saes if axis in sae.axes]
    return ReferenceSpec(
        score=score,
        axis=axis,
        values={_place(key, known, axis, where): _number(key, given[key], where) for key in given},
        source=source.strip(),
        where=where,
        conditions={each: condition(text, where=where) for each, text in wanted.items()},
    )


def _place(key: str, known: Sequence[AxisValue], axis: str, where: str) -> AxisValue:
    """A key, which TOML reads as a string, as a value of the axis.

    A value that no SAE has stays: a suite may take a part of a published ladder.
    """
    written = {str(value).lower() if type(value) is bool else str(value): value for value in known}
    if key in written:
        return written[key]
    kinds = {type(value) for value in known}
    if kinds <= {int, float}:
        with suppress(ValueError):
            return float(key.replace("_", ""))  # equal, as a key, to the same whole number
    elif str in kinds:
        return key
    raise CanonError(
        f"'{key}' is no value of the axis '{axis}'", where=where, hint=nearest(key, written)
    )


def _number(key: str, value: Any, where: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise CanonError(f"the value at '{key}' is {value!r}; it must be a number", where=where,
                         hint="What was not published is left out.")  # fmt: skip
    return value  # type: ignore[no-any-return]


def published(references: Sequence[ReferenceSpec], case: Case) -> dict[str, dict[str, Any]]:
    """The published values of a case by score, each with its source, as a run file keeps them."""
    found: dict[str, dict[str, Any]] = {}
    for reference in references:
        label, _, score = reference.score.partition(".")
        if label != case.label or (value := _value(reference, case)) is None:
            continue
        if score in found:
            raise CanonError(
                f"two published values of {reference.score} for {case.name}", where=reference.where,
                hint="Tell them apart by 'where', or keep one.",
            )  # fmt: skip
        found[score] = {"value": value, "source": reference.source}
    return found


def _value(reference: ReferenceSpec, case: Case) -> float | None:
    """The value for the case's last SAE (of a step the larger one), if all SAEs keep `where`."""
    if not all(
        axis in sae.axes and keeps(sae.axes[axis])
        for sae in case.subject
        for axis, keeps in reference.conditions.items()
    ):
        return None
    return reference.values.get(case.subject[-1].axes.get(reference.axis))  # type: ignore[arg-type]


def check_references(suite: Suite, cases: Sequence[Case]) -> None:
    """Refuse a table of published values that no case has, and two values for one."""
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
