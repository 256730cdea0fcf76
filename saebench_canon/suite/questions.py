"""Which questions a suite asks, and with which margins: the [question."NAME"] tables."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.question import Margin, Margins, Question
from saebench_canon.suite.toml_table import TomlTable, checked_table


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
            raise CanonError(f"the suite cannot ask '{name}' without metric {reads}",
                             where=where)  # fmt: skip
    margins = {}
    for name, question in questions.items():
        if question.is_for(metrics):
            where = f'{file}, [question."{name}"]'
            margins[name] = _margins(
                question, TomlTable(checked_table(tables.get(name, {}), where), where)
            )
    return margins


def _margins(question: Question, table: TomlTable) -> Margins:
    for name in table.values:
        if name not in question.defaults:
            raise CanonError(f"question '{question.name}' has no margin '{name}'",
                             where=table.where, hint=nearest(name, question.defaults))  # fmt: skip
    return {margin.name: _margin(margin, table) for margin in question.margins}


def _margin(margin: Margin, table: TomlTable) -> float:
    value = table.take(margin.name, type(margin.default), margin.default)
    low, high = margin.between
    if math.isfinite(value) and low <= value <= high:
        return value
    raise CanonError(
        f"'{margin.name}' must be {_span(low, high)}, got {value}",
        where=table.where,
        hint=f"It is the {margin.meaning}.",
    )


def _span(low: float, high: float) -> str:
    """The range of a margin, in words."""
    if math.isinf(high):
        return "a finite number" if math.isinf(low) else f"{low:g} or more"
    return f"between {low:g} and {high:g}" if math.isfinite(low) else f"{high:g} or less"
