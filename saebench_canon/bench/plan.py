"""What a run would measure: its cases with their ids, and which of them the store has."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from saebench_canon.bench.identity import OF_CASE, Identities, needed_inputs
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError, NotOffline, placed
from saebench_canon.plugin.data import Dtype
from saebench_canon.plugin.origin import different_hooks, is_as_wide_as_the_stream
from saebench_canon.plugin.registry import Registry
from saebench_canon.plugin.row import ListedCase
from saebench_canon.plugin.training_facts import training_facts
from saebench_canon.suite.cases import Case, cases_of
from saebench_canon.suite.load import load_suite
from saebench_canon.suite.references import check_references, published
from saebench_canon.suite.specs import SaeSpec, Suite

State = Literal["measured", "failed", "missing"]


@dataclass(frozen=True, eq=False)
class Plan:
    """A suite's cases in order, and their ids."""

    suite: Suite
    cases: Sequence[Case]
    ids: Sequence[str]
    store: Store

    def state(self, case_id: str) -> State:
        """What the store has of a case."""
        if self.store.error(case_id) is not None:  # of the last try; a record deletes it
            return "failed"
        return "measured" if self.store.record(case_id) is not None else "missing"

    @property
    def without_subject(self) -> list[str]:
        """The metric tables without an SAE, pair or group."""
        labels = {case.label for case in self.cases}
        return [
            spec.label
            for spec in self.suite.metrics
            if spec.label not in labels and not spec.planned
        ]

    def listed(self) -> list[ListedCase]:
        """The cases by their names, axes and labels, as a run file lists them."""
        return [
            listed(self.suite, case, case_id)
            for case, case_id in zip(self.cases, self.ids, strict=True)
        ]


def listed(suite: Suite, case: Case, case_id: str) -> ListedCase:
    """One case by its names and axes."""
    return ListedCase(
        id=case_id,
        suite=suite.name,
        label=case.label,
        title=case.title,
        metric=case.metric.name,
        version=case.metric.version,
        of=case.metric.of,
        over=case.over,
        subject=tuple(sae.name for sae in case.subject),
        axes=case.axes,
        members=tuple(_member(sae) for sae in case.subject),
        data=None if case.data is None else case.data.name,
        seed=case.seed,
        settings=dict(case.settings),
        references=published(suite.references, case),
    )


def _member(sae: SaeSpec) -> dict[str, Any]:
    """The axes of one SAE of a case, its training tokens, and what its files record."""
    facts: dict[str, Any] = dict(sae.axes)
    training = sae.source.training or {}
    if "tokens" in training:
        facts["train_tokens"] = training["tokens"]
    if "seed" in sae.axes:
        with suppress(CanonError):  # of a hub that is not reached, or reported when it is loaded
            path = None if training else sae.source.ref.partition(":")[2]
            facts["recorded"] = training_facts(sae.source.describe(), path)
    return facts


def make_plan(
    path: Path,
    registry: Registry,
    store: Store,
    *,
    settings: Sequence[str] = (),
    limit: int | None = None,
    dtype: Dtype | None = None,
    file: str | None = None,
    to_measure: bool = False,
) -> Plan:
    """The plan of a suite file; raises CanonError for every mistake that can be found beforehand.

    `file` is its name in errors. With `to_measure`, the SAEs must fit into memory.
    """
    suite = load_suite(path, registry, settings=settings, file=file)
    suite = adjusted(suite, limit=limit, dtype=dtype)
    return plan_of(suite, registry, store, to_measure=to_measure)


def plan_of(suite: Suite, registry: Registry, store: Store, *, to_measure: bool = False) -> Plan:
    """The plan of a parsed suite."""
    cases = cases_of(suite, registry)
    for case in cases:
        list(needed_inputs(case, registry))  # raises for unknown inputs
    for data in suite.data.values():
        with placed(data.where):
            data.source.check(data)
    check_widths(suite)
    check_hooks(suite)
    check_references(suite, cases)
    if to_measure:
        check_saes_fit(suite)
    identities = Identities(registry, store)
    planned = {spec.label for spec in suite.metrics if spec.planned}
    for case in cases:
        if case.label not in planned:
            _refuse_doubles(case, identities)
    cases = [case for case in cases if case.label not in planned or _possible(case, identities)]
    return Plan(suite, cases, [identities.case(case) for case in cases], store)


def _possible(case: Case, identities: Identities) -> bool:
    """Whether a case that no suite names has what its metric needs, and two SAEs to compare."""
    needed = {
        need.input
        for need in needed_inputs(case, identities.registry)
        if need.parameter not in case.metric.optional and need.input not in OF_CASE
    }
    saes = {identities.sae(sae, case.data) for sae in case.subject}
    return len(saes) == len(case.subject) and all(
        identities.available(name, case.data) for name in needed
    )


def _refuse_doubles(case: Case, identities: Identities) -> None:
    """Raise CanonError for an SAE that would be compared with itself."""
    names: dict[str, str] = {}
    for sae in case.subject:
        name = names.setdefault(identities.sae(sae, case.data), sae.name)
        if name != sae.name:
            raise CanonError(f"'{name}' and '{sae.name}' are the same SAE", where=sae.where)


def check_saes_fit(suite: Suite) -> None:
    """Raise CanonError for SAEs that are larger than memory, before any is read."""
    for sae in suite.saes:
        with placed(sae.where):
            sae.source.check_fits(sae.dtype)


def adjusted(suite: Suite, *, limit: int | None, dtype: Dtype | None) -> Suite:
    """The suite with fewer tokens (`--limit`) or another number format (`--dtype`)."""
    data, saes = dict(suite.data), list(suite.saes)
    if limit is not None:
        data = {
            name: replace(spec, tokens=limit, limited=True)
            if spec.tokens is None or limit < spec.tokens
            else spec
            for name, spec in data.items()
        }
    if dtype is not None:
        data = {name: replace(spec, dtype=dtype) for name, spec in data.items()}
        saes = [replace(sae, dtype=dtype) for sae in saes]
    return replace(suite, data=data, saes=saes)


def check_widths(suite: Suite) -> None:
    """Raise CanonError for SAEs whose d is not that of their data, before anything is computed.

    Data from a model is checked at hooks that are as wide as the residual stream.
    """
    for data in suite.data.values():
        hook = data.source.origin(data).hook
        if data.gives("lm") and not is_as_wide_as_the_stream(hook or ""):
            continue
        with placed(data.where):
            d = data.source.size(data).d
        for sae in suite.saes:
            if d is None or sae.data != data.name or not sae.source.local:
                continue
            sae_d = sae.source.describe().d
            if sae_d is not None and sae_d != d:
                raise CanonError(
                    f"SAE '{sae.name}' has d = {sae_d}, and the activations of '{data.name}' "
                    f"({data.source}) have d = {d}",
                    where=sae.where,
                )


def check_hooks(suite: Suite) -> None:
    """Raise CanonError for SAEs of two hooks on activations of one that the data does not name."""
    for data in suite.data.values():
        if data.source.origin(data).hook is not None:
            continue  # measuring says which SAEs are of another hook
        hooks: dict[str, str] = {}
        for sae in suite.saes:
            with suppress(NotOffline), placed(sae.where):
                hook = sae.source.describe().hook if sae.data == data.name else None
            apart = [other for other in hooks if hook and different_hooks(hook, other)]
            if apart:
                raise CanonError(
                    f"'{hooks[apart[0]]}' is an SAE of {apart[0]} and '{sae.name}' of {hook}, and "
                    f"'{data.name}' holds the activations of one hook", where=data.where,
                    hint="Write a data table for each hook.",
                )  # fmt: skip
            if hook:
                hooks[hook] = sae.name
