"""What a run would measure: its cases with their ids and what the store already has of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from saebench_canon.bench.identity import Identities, wanted_by
from saebench_canon.bench.store import Store
from saebench_canon.data.sources import check_source
from saebench_canon.errors import CanonError, placed
from saebench_canon.plugin.data import Dtype
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry
from saebench_canon.saes.memory import check_memory, sae_bytes
from saebench_canon.suite.cases import Case, cases_of
from saebench_canon.suite.load import load_suite
from saebench_canon.suite.references import check_references, published
from saebench_canon.suite.specs import Suite, TrainSpec

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

    def listed(self) -> list[dict[str, Any]]:
        """The cases as plain data, names, axes and labels included: what a run file keeps."""
        return [
            listed(self.suite, case, case_id)
            for case, case_id in zip(self.cases, self.ids, strict=True)
        ]


def listed(suite: Suite, case: Case, case_id: str) -> dict[str, Any]:
    """One case as plain data."""
    references = published(suite.references, case)
    return {
        "id": case_id,
        "suite": suite.name,
        "label": case.label,
        "title": case.title,
        "metric": case.metric.name,
        "version": case.metric.version,
        "of": case.metric.of,
        "over": case.over,
        "subject": [sae.name for sae in case.subject],
        "axes": case.axes,
        "members": [_member(sae) for sae in case.subject],
        "data": None if case.data is None else case.data.name,
        "seed": case.seed,
        "settings": dict(case.settings),
        **({"references": references} if references else {}),
    }


def _member(sae: Any) -> dict[str, Any]:
    facts = dict(sae.axes)
    if isinstance(sae.source, TrainSpec) and "tokens" in sae.source.settings:
        facts["train_tokens"] = sae.source.settings["tokens"]
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
    suite = load_suite(path, registry, settings=settings, called=called)
    suite = adjusted(suite, limit=limit, dtype=dtype)
    return plan_of(suite, registry, store, to_measure=to_measure)


def plan_of(suite: Suite, registry: Registry, store: Store, *, to_measure: bool = False) -> Plan:
    """The plan of a parsed suite."""
    cases = cases_of(suite, registry)
    for case in cases:
        list(wanted_by(case, registry))  # refuses inputs that nobody makes
    for data in suite.data.values():
        with placed(data.where):
            check_source(data)
    check_files(suite, registry)
    check_references(suite, cases)
    if to_measure:
        check_saes_fit(suite, registry)
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


def check_saes_fit(suite: Suite, registry: Registry) -> None:
    """Refuse SAEs on disk that are larger than memory, before any of them is read."""
    for sae in suite.saes:
        if not isinstance(sae.source, Ref) or not sae.source.local:
            continue
        with placed(sae.where):
            told = registry.adapter(sae.source.scheme).describe(sae.source)
            if told.d is not None and told.width is not None:
                needed = sae_bytes(told.d, told.width, sae.dtype, stored=told.dtype or "float32")
                check_memory(needed, f"an SAE of {told.width} latents", where=sae.source.target)


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


def check_files(suite: Suite, registry: Registry) -> None:
    """Refuse files of activations that are none, or not as wide as the SAEs that read them."""
    from saebench_canon.saes.weights.safetensors_file import read_header

    for data in suite.data.values():
        if data.file is None:
            continue
        with placed(data.where):
            acts = read_header(data.file).get("acts")
        if acts is None or len(acts.shape) != 2:
            raise CanonError(f"{data.file} has no 'acts' [n, d]", where=data.where)
        for sae in suite.saes:
            if sae.data == data.name and isinstance(sae.source, Ref) and sae.source.local:
                d = registry.adapter(sae.source.scheme).describe(sae.source).d
                if d is not None and d != acts.shape[1]:
                    raise CanonError(
                        f"SAE '{sae.name}' reads activations of width {d},"
                        f" and {data.file.name} has {acts.shape[1]}",
                        where=sae.where,
                    )
