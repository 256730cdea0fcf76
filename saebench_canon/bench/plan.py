"""What a run would measure: its cases with their ids and what the store already has of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from saebench_canon.bench.identity import Identities, needed_inputs
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError, placed
from saebench_canon.plugin.data import Dtype
from saebench_canon.plugin.registry import Registry
from saebench_canon.plugin.row import ListedCase
from saebench_canon.suite.cases import Case, cases_of
from saebench_canon.suite.load import load_suite
from saebench_canon.suite.references import check_references, published
from saebench_canon.suite.specs import SaeSpec, Suite

State = Literal["measured", "failed", "missing"]


@dataclass(frozen=True, eq=False)
class Plan:
    """A suite's cases in order, and each one's id."""

    suite: Suite
    cases: Sequence[Case]
    ids: Sequence[str]
    store: Store

    def state(self, case_id: str) -> State:
        """What the store has of a case."""
        if self.store.error(case_id) is not None:  # of the last try; a record forgets it
            return "failed"
        return "measured" if self.store.record(case_id) is not None else "missing"

    @property
    def without_subject(self) -> list[str]:
        """The metric tables that find no SAE, pair or group."""
        found = {case.label for case in self.cases}
        return [spec.label for spec in self.suite.metrics if spec.label not in found]

    def listed(self) -> list[ListedCase]:
        """The cases by their names, axes and labels: what a run file keeps."""
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
    """The axes of one SAE of a case, and how many tokens it was trained on."""
    facts: dict[str, Any] = dict(sae.axes)
    training = sae.source.training or {}
    if "tokens" in training:
        facts["train_tokens"] = training["tokens"]
    return facts


def make_plan(
    path: Path,
    registry: Registry,
    store: Store,
    *,
    settings: Sequence[str] = (),
    limit: int | None = None,
    dtype: Dtype | None = None,
    called: str | None = None,
    to_measure: bool = False,
) -> Plan:
    """The plan of a suite file; raises CanonError for all that can be known to be wrong.

    `called` is how errors name the file; `to_measure` says that this machine must hold the SAEs.
    """
    suite = load_suite(path, registry, settings=settings, file=called)
    suite = adjusted(suite, limit=limit, dtype=dtype)
    return plan_of(suite, registry, store, to_measure=to_measure)


def plan_of(suite: Suite, registry: Registry, store: Store, *, to_measure: bool = False) -> Plan:
    """The plan of a parsed suite."""
    cases = cases_of(suite, registry)
    for case in cases:
        list(needed_inputs(case, registry))  # refuses inputs that nobody makes
    for data in suite.data.values():
        with placed(data.where):
            data.source.check(data)
    check_widths(suite)
    check_references(suite, cases)
    if to_measure:
        check_saes_fit(suite)
    identities = Identities(registry, store)
    for case in cases:
        _refuse_doubles(case, identities)
    return Plan(suite, cases, [identities.case(case) for case in cases], store)


def _refuse_doubles(case: Case, identities: Identities) -> None:
    """An SAE compared with itself would agree with itself."""
    seen: dict[str, str] = {}
    for sae in case.subject:
        other = seen.setdefault(identities.sae(sae, case.data), sae.name)
        if other != sae.name:
            raise CanonError(f"'{other}' and '{sae.name}' are the same SAE", where=sae.where)


def check_saes_fit(suite: Suite) -> None:
    """Refuse SAEs on disk that are larger than memory, before any of them is read."""
    for sae in suite.saes:
        with placed(sae.where):
            sae.source.check_fits(sae.dtype)


def adjusted(suite: Suite, *, limit: int | None, dtype: Dtype | None) -> Suite:
    """The suite with fewer tokens or another number format, as `--limit` and `--dtype` ask."""
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
    """Refuse SAEs that read activations of another width than their data says it has.

    A model's width is that of its stream, and a hook may give another: the bench will see.
    """
    for data in suite.data.values():
        if data.gives("lm"):
            continue
        with placed(data.where):
            width = data.source.size(data).d
        for sae in suite.saes:
            if width is None or sae.data != data.name or not sae.source.local:
                continue
            d = sae.source.describe().d
            if d is not None and d != width:
                raise CanonError(
                    f"SAE '{sae.name}' reads activations of width {d},"
                    f" and those of '{data.name}' ({data.source}) are {width}",
                    where=sae.where,
                )
