"""Reading the [[metric]] and [[gate]] tables of a suite."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from saebench_canon.errors import CanonError, nearest, placed
from saebench_canon.plugin.metric import SUBJECT, Metric, Of
from saebench_canon.plugin.question import IN_FAMILIES, Question
from saebench_canon.plugin.registry import Registry
from saebench_canon.saes.source import Checkpoint
from saebench_canon.suite.axes import condition
from saebench_canon.suite.cases import WITNESSES
from saebench_canon.suite.names import checked_name, typed_setting
from saebench_canon.suite.saes import ref_of
from saebench_canon.suite.specs import GateSpec, MetricSpec
from saebench_canon.suite.toml_table import TomlTable


def parse_metric(
    table: TomlTable, axes: Sequence[str], registry: Registry, root: Path = Path()
) -> MetricSpec:
    """The metric that a [[metric]] table describes, for SAEs with these axes.

    Relative paths of SAEs that settings name are taken from `root`.
    """
    where = table.where
    metric = registry.metric(table.take("name", str), where=where)
    label = checked_name(table.take("label", str, metric.name), where)
    default_over = {"sae": "each", "pair": "pairs:width", "group": "group:seed"}[metric.of]
    over = table.take("over", str, default_over)
    _check_over(over, metric.of, axes, where)
    peers = table.optional("peers", str)
    conditions = table.take("where", dict, {})
    for axis in [*conditions, *([peers] if peers and peers != WITNESSES else [])]:
        if axis not in axes:
            raise CanonError(f"no SAE has the axis '{axis}'", where=where, hint=nearest(axis, axes))
    set_values = table.take("settings", dict, {})
    for key in set_values:
        if key not in metric.settings:
            raise CanonError(f"metric '{metric.name}' has no setting '{key}'", where=where,
                             hint=nearest(key, metric.settings))  # fmt: skip
    seeds = table.take("seeds", list, [0])
    if not seeds or any(type(seed) is not int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise CanonError(
            f"'seeds' must be a list of different whole numbers, got {seeds!r}", where=where
        )
    floors = table.take("floors", bool, True)
    table.finish()
    settings = {
        key: _setting(metric, key, set_values[key], registry, root, where)
        if key in set_values
        else default
        for key, default in metric.settings.items()
    }
    parsed = {axis: condition(text, where=where) for axis, text in conditions.items()}
    return MetricSpec(metric.name, label, over, peers, parsed, settings, seeds, where, floors)


def planned_for(
    questions: Iterable[Question], metrics: Sequence[MetricSpec], registry: Registry
) -> list[MetricSpec]:
    """The metric tables that questions need and the suite does not have.

    Each is for the SAEs of the first table of a metric that its question reads, with the settings
    that it has in common with that one. A table with `floors = false` asks for none.
    """
    planned: list[MetricSpec] = []
    for question in questions:
        asking = [spec for spec in metrics if spec.metric in question.metrics]
        if not asking or not all(spec.floors for spec in asking):
            continue
        for wish in question.plans:
            known = [*metrics, *planned]
            if wish.metric not in registry.metrics or any(
                spec.metric == wish.metric and spec.over == wish.over for spec in known
            ):
                continue
            metric, first = registry.metrics[wish.metric], asking[0]
            common = {k: v for k, v in first.settings.items() if k in metric.settings}
            label = wish.metric
            if any(spec.label == label for spec in known):
                label = f"{wish.metric}:{wish.over}"
            planned.append(
                MetricSpec(
                    wish.metric, label, wish.over, wish.peers, first.conditions,
                    {**metric.settings, **common}, [0], first.where, planned=True,
                )
            )  # fmt: skip
    return planned


def _setting(
    metric: Metric, key: str, value: Any, registry: Registry, root: Path, where: str
) -> Any:
    """A setting's value; an SAE that it names must exist, and stays a ref."""
    if key not in metric.sae_settings:
        return typed_setting(key, value, metric.settings[key], where, kind=metric.kinds.get(key))
    if not isinstance(value, str):
        raise CanonError(
            f"the setting '{key}' must name an SAE, got {value!r}", where=where,
            hint="Write file:PATH, or SCHEME://OWNER/NAME for a hub.",
        )  # fmt: skip
    ref = ref_of(value, registry, root, where)
    if ref.local:
        with placed(where):
            Checkpoint(ref, registry).describe()
    return str(ref)


def _check_over(over: str, of: Of, axes: Sequence[str], where: str) -> None:
    kind, _, axis = over.partition(":")
    fits = {"each": "sae", "pairs": "pair", "all-pairs": "pair", "group": "group",
            **dict.fromkeys(IN_FAMILIES, "pair")}  # fmt: skip
    if kind not in fits or (kind in ("each", *IN_FAMILIES)) == bool(axis):
        known = "each, pairs:AXIS, all-pairs:AXIS, family, steps, group:AXIS"
        raise CanonError(f"unknown over '{over}'", where=where, hint=f"Known: {known}.")
    if fits[kind] != of:
        raise CanonError(f"over = '{over}' does not fit a metric of {SUBJECT[of]}", where=where)
    if axis and axis not in axes:
        raise CanonError(f"'over' names the axis '{axis}', which no SAE has", where=where,
                         hint=nearest(axis, axes))  # fmt: skip


def parse_gate(table: TomlTable, metrics: Sequence[MetricSpec], registry: Registry) -> GateSpec:
    """The gate that a [[gate]] table describes."""
    score = table.take("score", str)
    require = table.take("require", str)
    table.finish()
    spec_of_score(score, metrics, registry, table.where)
    if not re.match(r"\s*(==|!=|<=|>=|<|>)", require):
        raise CanonError(f"'require' must be a bound, got '{require}'", where=table.where,
                         hint="Write a bound such as '>= 0.6'.")  # fmt: skip
    condition(require, where=table.where)
    return GateSpec(score, require, table.where)


def spec_of_score(
    text: str, metrics: Sequence[MetricSpec], registry: Registry, where: str
) -> MetricSpec:
    """The metric table that `LABEL.SCORE` names; raises CanonError if there is no such score."""
    label, _, name = text.partition(".")
    spec = next((metric for metric in metrics if metric.label == label), None)
    if spec is None:
        raise CanonError(f"no metric '{label}' in this suite", where=where,
                         hint=nearest(label, [metric.label for metric in metrics]))  # fmt: skip
    names = [score.name for score in registry.metrics[spec.metric].scores]
    if name not in names:
        raise CanonError(f"metric '{spec.metric}' has no score '{name}'", where=where,
                         hint=nearest(name, names))  # fmt: skip
    return spec


def refuse_shared_labels(metrics: Sequence[MetricSpec]) -> None:
    """Raise CanonError for two metric tables with the same label."""
    labels: set[str] = set()
    for spec in metrics:
        if spec.label in labels:
            raise CanonError(
                f"two [[metric]] tables have the label '{spec.label}'", where=spec.where,
                hint="Set a 'label' for each.",
            )  # fmt: skip
        labels.add(spec.label)
