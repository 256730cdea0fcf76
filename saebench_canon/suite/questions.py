"""Which questions a suite asks, and by which margins: the [question."NAME"] tables."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.question import Margin, Margins, Question
from saebench_canon.suite.toml_table import Table, a_table


def parse_questions(
    tables: Mapping[str, Any],
    metrics: Collection[str],
    questions: Mapping[str, Question],
    *,
    file: str,
) -> dict[str, Margins]:
    """The margins of each question that one of these metrics can answer, defaults included."""
    for name in tables:
        where = f'{file}, [question."{name}"]'
        if name not in questions:
            raise CanonError(f"unknown question '{name}'", where=where,
                             hint=nearest(name, questions))  # fmt: skip
        if not questions[name].is_for(metrics):
            reads = " or ".join(questions[name].metrics)
            raise CanonError(f"this suite does not ask '{name}': it has no metric {reads}",
                             where=where)  # fmt: skip
    asked = {}
    for name, question in questions.items():
        if question.is_for(metrics):
            where = f'{file}, [question."{name}"]'
            asked[name] = _margins(question, Table(a_table(tables.get(name, {}), where), where))
    return asked


def _margins(question: Question, table: Table) -> Margins:
    for name in table.values:
        if name not in question.defaults:
            raise CanonError(f"question '{question.name}' has no margin '{name}'",
                             where=table.where, hint=nearest(name, question.defaults))  # fmt: skip
    return {margin.name: _margin(margin, table) for margin in question.margins}


def _margin(margin: Margin, table: Table) -> float:
    value = table.take(margin.name, type(margin.default), margin.default)
    low, high = margin.between
    if math.isfinite(value) and low <= value <= high:
        return value
    raise CanonError(
        f"'{margin.name}' must be {_span(low, high)}, not {value}",
        where=table.where,
        hint=f"It is the {margin.meaning}.",
    )


def _span(low: float, high: float) -> str:
    """The numbers that a margin may be, in words."""
    if math.isinf(high):
        return "a finite number" if math.isinf(low) else f"{low:g} or more"
    return f"between {low:g} and {high:g}" if math.isfinite(low) else f"{high:g} or less"
