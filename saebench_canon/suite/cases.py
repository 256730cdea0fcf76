"""What a case is: one metric on one subject with one seed; a suite is a list of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from saebench_canon.errors import CanonError, NotOffline, placed
from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.registry import Registry
from saebench_canon.suite.axes import (
    all_pairs,
    by_width,
    families,
    family_pairs,
    ladders,
    pairs,
    steps,
    without,
    witnesses,
)
from saebench_canon.suite.specs import MetricSpec, SaeSpec, Suite

WITNESSES = "witnesses"  # peers that are no axis
MOST_CASES = 100_000
MOST_READS = 300_000  # SAEs and peers of all cases


@dataclass(frozen=True, eq=False)
class Case:
    """One metric on one subject (an SAE, an ordered pair, a group) with one seed."""

    metric: Metric
    label: str
    over: str
    subject: tuple[SaeSpec, ...]
    peers: tuple[SaeSpec, ...]
    data: DataSpec | None
    settings: Mapping[str, Any]
    seed: int
    title: str

    @property
    def name(self) -> str:
        """The subject's name: its members' names, joined by plus signs."""
        return "+".join(sae.name for sae in self.subject)

    @property
    def axes(self) -> dict[str, Any]:
        """Each axis with the members' value, or the list of their values if they differ."""
        axes: dict[str, Any] = {}
        for axis in self.subject[0].axes:
            values = [sae.axes.get(axis) for sae in self.subject]
            axes[axis] = values[0] if len(set(values)) == 1 else values
        return axes

    def __str__(self) -> str:
        return f"{self.name} {self.title}"


def cases_of(suite: Suite, registry: Registry) -> list[Case]:
    """Every case of a suite, ordered so that neighbours share inputs.

    Cases are sorted by data, then by the last SAE that they need, then by metric table, so that
    workers which take neighbouring cases seldom wait for each other.
    """
    position = {sae.name: index for index, sae in enumerate(suite.saes)}
    data = {name: _as_read(spec, suite) for name, spec in suite.data.items()}
    siblings = [_siblings(suite, spec) for spec in suite.metrics]
    ranked = (
        (
            _rank(suite, subject, position, row),
            _case(siblings[row], spec, subject, seed, data, registry),
        )
        for row, spec in enumerate(suite.metrics)
        for subject in _subjects(suite, spec)
        for seed in spec.seeds
    )
    cases, reads = [], 0
    for case in ranked:
        cases.append(case)
        reads += len(case[1].subject) + len(case[1].peers)
        if len(cases) > MOST_CASES or reads > MOST_READS:
            raise CanonError(
                f"the suite has more than {MOST_CASES:,} cases, or they read more than "
                f"{MOST_READS:,} SAEs in all", where=str(suite.path or suite.name),
                hint="Restrict its metrics by 'where' or 'over', or write several suites.",
            )  # fmt: skip
    return [case for _, case in sorted(cases, key=lambda ranked: ranked[0])]


def _rank(
    suite: Suite, subject: Sequence[SaeSpec], position: Mapping[str, int], row: int
) -> tuple[int, int, int]:
    data = subject[-1].data
    return (
        -1 if data is None else list(suite.data).index(data),
        max(position[sae.name] for sae in subject),
        row,
    )


def _case(
    siblings: Mapping[object, Sequence[Any]],
    spec: MetricSpec,
    subject: tuple[SaeSpec, ...],
    seed: int,
    data: Mapping[str, DataSpec],
    registry: Registry,
) -> Case:
    return Case(
        metric=registry.metrics[spec.metric],
        label=spec.label,
        over=spec.over,
        subject=subject,
        peers=_peers(siblings, spec, subject),
        data=data[subject[-1].data] if subject[-1].data is not None else None,
        settings=spec.settings,
        seed=seed,
        title=spec.label if len(spec.seeds) == 1 else f"{spec.label}@{seed}",
    )


def _subjects(suite: Suite, spec: MetricSpec) -> Iterator[tuple[SaeSpec, ...]]:
    saes = [
        sae
        for sae in suite.saes
        if all(
            axis in sae.axes and holds(sae.axes[axis]) for axis, holds in spec.conditions.items()
        )
    ]
    kind, _, axis = spec.over.partition(":")
    if kind == "each":
        return ((sae,) for sae in saes)
    if kind == "group":
        return (tuple(group) for group in ladders(saes, axis) if len(group) > 1)
    if kind in PAIRED:
        return PAIRED[kind](saes)
    along: Callable[[Iterable[SaeSpec], str], Iterator[tuple[SaeSpec, SaeSpec]]]
    along = pairs if kind == "pairs" else all_pairs
    return along(saes, axis)


PAIRED: Mapping[str, Callable[[Iterable[SaeSpec]], Iterator[tuple[SaeSpec, SaeSpec]]]] = {
    "family": family_pairs,
    "steps": steps,
}


def _siblings(suite: Suite, spec: MetricSpec) -> Mapping[object, Sequence[Any]]:
    """The SAEs that differ only in the peers' axis, by what they share; or a family's, by width."""
    if spec.peers == WITNESSES:
        return {
            sae: sizes
            for family in families(suite.saes)
            for sizes in (by_width(family),)
            for sae in family
        }
    siblings: dict[object, list[SaeSpec]] = defaultdict(list)
    for sae in suite.saes:
        siblings[sae.data, without(sae.axes, spec.peers or "")].append(sae)
    return siblings


def _peers(
    siblings: Mapping[object, Sequence[Any]], spec: MetricSpec, subject: tuple[SaeSpec, ...]
) -> tuple[SaeSpec, ...]:
    """The SAEs outside the subject that differ from its last one only in the peers' axis."""
    if spec.peers == WITNESSES:
        return tuple(witnesses(siblings[subject[-1]], subject))
    axis, sae = spec.peers, subject[-1]
    if axis is None or axis not in sae.axes:
        return ()
    return tuple(
        peer for peer in siblings[sae.data, without(sae.axes, axis)] if peer not in subject
    )


READS = {
    True: "was trained on centred activations",
    False: "was not",
    "none": "reads activations as they are",
    "layer_norm": "reads activations with mean 0 and standard deviation 1",
    "constant_norm_rescale": "reads activations rescaled to one norm",
}


def _as_read(data: DataSpec, suite: Suite) -> DataSpec:
    """The data with `center` and `normalize` set: by its table, or else as its SAEs need them."""
    center, normalize = data.center, data.normalize
    if center is None and data.source.centres:
        centred = attrgetter("center_writing_weights")
        center = _requested(data, suite, "center", lambda description: bool(centred(description)))
    if normalize is None:
        normalize = _requested(data, suite, "normalize", attrgetter("normalize"))
    return replace(data, center=bool(center), normalize=normalize or "none")


def _requested(
    data: DataSpec, suite: Suite, key: str, request: Callable[[Description], Any]
) -> Any:
    """How the data's SAEs read activations; raises CanonError if they differ."""
    requests: dict[Any, str] = {}
    for sae in suite.saes:
        if sae.data == data.name and sae.source.training is None:
            with suppress(NotOffline), placed(sae.where):
                requests.setdefault(request(sae.source.describe()), sae.name)
    if len(requests) > 1:
        by_request = sorted(requests.items(), key=lambda entry: not entry[0])
        (first, name), (second, other_name) = by_request[:2]
        raise CanonError(
            f"'{name}' {READS[first]} and '{other_name}' {READS[second]}",
            where=data.where, hint=f"Write a data table for each, or set '{key}' for both.",
        )  # fmt: skip
    return next(iter(requests), None)
