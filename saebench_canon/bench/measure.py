"""Measuring a case: its inputs are computed or loaded, the metric runs, the record is stored."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from saebench_canon.bench.artifact_cache import ArtifactCache, Execution
from saebench_canon.bench.identity import OF_CASE, SUBJECTS, Identities, NeededInput, needed_inputs
from saebench_canon.bench.provenance import versions
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError, StoreError
from saebench_canon.plugin.metric import Mark, Measurement, Undefined
from saebench_canon.plugin.origin import different_hooks, other_origin
from saebench_canon.plugin.record import Record, marks_of, scores_of
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry
from saebench_canon.saes.source import Checkpoint
from saebench_canon.suite.cases import Case
from saebench_canon.suite.specs import SaeSpec

if TYPE_CHECKING:
    from saebench_canon.plugin.sae import CanonicalSAE


FEW = 3  # kinds of special tokens that a note names


@dataclass
class Bench:
    """Measures cases with one registry, store and execution."""

    registry: Registry
    store: Store
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        self.identities = Identities(self.registry, self.store)
        self.artifacts = ArtifactCache(self.registry, self.store, self.identities, self.execution)

    def measure(self, case: Case, *, rerun: bool = True) -> Record:
        """The record of a case, measured through the plugins' hook and stored.

        With `rerun` false, a record that is in the store, or that another process is making, is
        returned instead. Raises what the metric raises; the store then keeps the error.
        """
        case_id = self.identities.case(case)
        with self.store.claim(case_id, title=str(case)):
            stored = None if rerun else self.store.measured(case_id)
            if stored is not None:
                return stored
            try:
                record = self._measured(case, case_id)
            except StoreError:
                raise  # nothing can be kept
            except Exception as error:
                if (fault := self.store.fault(error)) is not None:
                    raise fault from error
                self.store.keep_error(case_id, error_of(case, error))
                raise
            self.store.keep_record(record)
        self.registry.manager.hook.canon_recorded(record=record)
        return record

    def _measured(self, case: Case, case_id: str) -> Record:
        """The record that a plugin or the metric makes, with all that its id is made of."""
        record: Record = self.registry.manager.hook.canon_measure(case=case, bench=self)
        if record.id != case_id:
            raise CanonError(f"a plugin gave the record of another case, {record.id}")
        return replace(
            record,
            identity=self.identities.facts(case),
            digests=self.store.digests_of(record.tables),
        )

    def compute(self, case: Case) -> Record:
        """Run the case's metric on its inputs, as the built-in `canon_measure` does."""
        with self._threads():
            return self._compute(case)

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """Compute with the same number of threads on every machine."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.execution.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _compute(self, case: Case) -> Record:
        case_id = self.identities.case(case)
        started = time.perf_counter()
        lacking = self._lacking(case)
        if lacking is None:
            self._check_widths(case)
            needed = needed_inputs(case, self.registry)
            arguments = [self._argument(need, case) for need in needed]
            inputs_ready = time.perf_counter()
            measured = case.metric.measure(
                *arguments, **{**case.settings, **self._named_saes(case)}
            )
        else:
            inputs_ready = time.perf_counter()
            measured = {score.name: Undefined(lacking) for score in case.metric.scores}
        scores = scores_of(case.metric, measured)
        tables = self._keep_tables(case_id, measured)
        calibrated = self._calibrations(case) if lacking is None else {}
        observed = () if lacking else self._observed(case)
        return Record(
            id=case_id,
            metric=case.metric.name,
            version=case.metric.version,
            settings=dict(case.settings),
            subject=tuple(self._sae_facts(sae, case) for sae in case.subject),
            peers=tuple(self._sae_facts(sae, case) for sae in case.peers),
            seed=case.seed,
            scores=scores,
            tables=tables,
            marks=(*marks_of(measured), *_notes(calibrated), *observed),
            provenance={
                "versions": versions(),
                "device": self.execution.device,
                "threads": self.execution.threads,
                "limited": case.data is not None and case.data.limited,
                "seconds": round(time.perf_counter() - inputs_ready, 3),
                "seconds_inputs": round(inputs_ready - started, 3),
                "data": self._data_facts(case),
                "trained": self._trainings(case),
                "calibrated": calibrated,
                "commits": self._commits(case),
                **self._named(case),
            },
        )

    def _argument(self, needed: NeededInput, case: Case) -> Any:
        if needed.input == "seed":
            return case.seed
        if needed.input == "memo":
            return self.artifacts.memo
        if needed.input == "keep":
            return self.artifacts.keep
        if not self.identities.available(needed.input, case.data):
            return None
        saes = (None,) if needed.saes is None else needed.saes
        values = tuple(self.artifacts.input(needed.input, case.data, sae) for sae in saes)
        if needed.input == "sae":  # metrics compute on the CPU, where the codes are
            values = tuple(value.to("cpu") for value in values)
        return values if needed.many else values[0]

    def _named_saes(self, case: Case) -> dict[str, CanonicalSAE]:
        """The SAEs that settings name, by setting."""
        named = ((name, case.settings.get(name)) for name in case.metric.sae_settings)
        return {name: self.artifacts.named(text) for name, text in named if text is not None}

    def _named(self, case: Case) -> dict[str, Any]:
        """Refs and digests of SAEs that settings name: a ref alone may later mean another SAE."""
        named = {name: case.settings.get(name) for name in case.metric.sae_settings}
        facts = {
            name: {"ref": text, "digest": self.identities.named(text)}
            for name, text in named.items()
            if text is not None
        }
        return {"named": facts} if facts else {}

    def _lacking(self, case: Case) -> str | None:
        """What the case's metric needs and its data does not give; None if nothing."""
        for needed in needed_inputs(case, self.registry):
            if (
                needed.input not in OF_CASE
                and needed.parameter not in case.metric.optional
                and not self.identities.available(needed.input, case.data)
            ):
                if case.data is None:
                    return "needs activations, and the SAE has no data"
                if needed.input == "features":
                    return "needs a world, whose features are known: `synthetic` in its data table"
                return f"needs '{needed.input}', which data without a language model does not give"
        return None

    def _check_widths(self, case: Case) -> None:
        """Raise CanonError for an SAE whose d is not that of its activations or of the others."""
        saes = [self.artifacts.sae(sae, case.data) for sae in case.subject]
        d = saes[0].d
        if set(case.metric.inputs) - {*SUBJECTS[case.metric.of], *OF_CASE} and (
            self.identities.available("acts", case.data)
        ):
            d = self.artifacts.input("acts", case.data).d
        for spec, sae in zip(case.subject, saes, strict=True):
            if sae.d != d:
                raise CanonError(
                    f"SAE '{spec.name}' has d = {sae.d}, and its activations have d = {d}",
                    where=spec.where,
                )

    def _observed(self, case: Case) -> Iterator[Mapping[str, str]]:
        """Caveats and notes on what the SAEs and the activations are, whatever the metric."""
        yield from self._misnamed(case)
        yield from self._misplaced(case)
        if case.data is None or not self._reads_data(case):
            return
        if self.identities.available("tokens", case.data):
            special = self.artifacts.input("tokens", case.data).special
            if special:
                listed = ", ".join(f"{count:,} × {token}" for token, count in special[:FEW])
                more = f" and {len(special) - FEW} more kinds" if len(special) > FEW else ""
                reason = f"special tokens in the text do not count: {listed}{more}"
                yield asdict(Mark("note", reason))
        if self.identities.available("surplus", case.data):
            surplus = self.artifacts.input("surplus", case.data)
            if surplus:
                few = f"{len(surplus):,} tensors in the model's files are not used"
                yield asdict(Mark("note", f"{few}, for example {surplus[0]}"))
        if self.identities.available("twins", case.data):
            twins = self.artifacts.input("twins", case.data)
            if copies := len(twins) - len(set(twins)):
                reason = f"{copies:,} of {len(twins):,} documents repeat another one"
                yield asdict(Mark("note", f"{reason}; they are on its side of the holdout"))
        if self.identities.available("sinks", case.data):
            for large, sentence in self.artifacts.input("sinks", case.data).sentences():
                yield asdict(Mark("caveat" if large else "note", sentence))

    def _misnamed(self, case: Case) -> Iterator[Mapping[str, str]]:
        """Caveats for SAEs whose width is not the suite's axis `width`."""
        for spec in case.subject:
            width, declared = self.artifacts.sae(spec, case.data).width, spec.axes.get("width")
            if declared is not None and declared != width:
                reason = f"has {width} latents where the suite says {declared}"
                yield asdict(Mark("caveat", reason))

    def _misplaced(self, case: Case) -> Iterator[Mapping[str, str]]:
        """Caveats for SAEs of another hook, model or use of BOS than the data or one another."""
        described = [spec.source.describe() for spec in case.subject]
        reasons: list[str] = []
        if case.data is not None and self._reads_data(case):
            origin = case.data.source.origin(case.data)
            if self.identities.available("tokens", case.data):
                origin = replace(origin, bos=self.artifacts.input("tokens", case.data).bos)
            reasons += [reason for sae in described for reason in other_origin(sae, origin)]
        hooks = [sae.hook for sae in described if sae.hook]
        if apart := next((hook for hook in hooks if different_hooks(hooks[0], hook)), None):
            reasons.append(f"SAEs of two hooks are compared, {hooks[0]} and {apart}")
        for reason in dict.fromkeys(reasons):
            yield asdict(Mark("caveat", reason))

    def _reads_data(self, case: Case) -> bool:
        """Whether the metric uses anything of the data besides the SAEs."""
        inputs = {needed.input for needed in needed_inputs(case, self.registry)}
        return bool(inputs - {"sae", *OF_CASE})

    def _commits(self, case: Case) -> dict[str, str]:
        """The commits of what was read from a hub, whose names may later mean something else."""
        commits = dict(case.data.source.commits(case.data)) if case.data is not None else {}
        sources = [sae.source for sae in (*case.subject, *case.peers)]
        named = [case.settings.get(name) for name in case.metric.sae_settings]
        sources += [Checkpoint(Ref.parse(text), self.registry) for text in named if text]
        for source in sources:
            commit = source.commit()
            if commit is not None:
                commits[source.ref] = commit
        return commits

    def _keep_tables(self, case_id: str, measured: Any) -> dict[str, str]:
        if not isinstance(measured, Measurement):
            return {}
        return {
            name: self.store.keep_table(case_id, name, partial(table.to_parquet, index=False))
            for name, table in sorted(measured.tables.items())
        }

    def _trainings(self, case: Case) -> dict[str, Any]:
        """How the subject's SAEs were trained here: tokens, passes over the data, steps."""
        outcomes = {}
        for sae in case.subject:
            outcome = self.artifacts.training(sae, case.data)
            if outcome is not None:
                outcomes[self.identities.sae(sae, case.data)] = outcome
        return outcomes

    def _calibrations(self, case: Case) -> dict[str, Any]:
        """The thresholds that were calibrated on the case's data, since no checkpoint has them."""
        needed = (need.saes or () for need in needed_inputs(case, self.registry))
        specs = dict.fromkeys((*case.subject, *chain.from_iterable(needed)))
        saes = {spec: self.artifacts.sae(spec, case.data) for spec in specs}
        return {
            self.identities.sae(spec, case.data): asdict(sae.calibration)
            for spec, sae in saes.items()
            if sae.calibration is not None
        }

    def _sae_facts(self, sae: SaeSpec, case: Case) -> dict[str, str]:
        """The SAE's ref and digest; what was trained here is told apart by its digest."""
        digest = self.identities.sae(sae, case.data)
        ref = sae.source.ref
        return {"ref": f"{ref}/{digest}" if sae.source.training else ref, "digest": digest}

    def _data_facts(self, case: Case) -> dict[str, Any] | None:
        if case.data is None:
            return None
        facts: dict[str, Any] = {"digest": self.identities.data(case.data)}
        if self.identities.available("acts", case.data) and "acts" in case.metric.inputs:
            acts = self.artifacts.input("acts", case.data)
            facts |= {"tokens": len(acts), "documents": int(acts.doc.unique().numel())}
        return facts


def _notes(calibrated: Mapping[str, Mapping[str, Any]]) -> Iterator[Mapping[str, str]]:
    """Notes for SAEs whose threshold was calibrated here."""
    for tokens in sorted({calibration["tokens"] for calibration in calibrated.values()}):
        reason = f"no threshold in its checkpoint: calibrated on {tokens:,} tokens (eq. 8)"
        yield asdict(Mark("note", reason))


def error_of(case: Case, error: BaseException) -> dict[str, Any]:
    """An error for the store: a sentence, and the traceback unless it is a user's mistake."""
    if isinstance(error, CanonError):
        sentence, trace = str(error), ""
    else:
        sentence = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
    return {"case": str(case), "metric": case.metric.name, "error": sentence, "traceback": trace}
