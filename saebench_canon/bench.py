"""Measuring a case: its inputs are made once and kept, the metric runs, the record is stored."""

from __future__ import annotations

import json
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.case import Case
from saebench_canon.errors import CanonError, placed
from saebench_canon.fingerprint import fingerprint
from saebench_canon.identity import OF_CASE, SUBJECTS, Identities, Wanted, wanted_by
from saebench_canon.plugins import Registry
from saebench_canon.provenance import versions
from saebench_canon.record import Record, marks_of, scores_of
from saebench_canon.ref import Ref
from saebench_canon.scores import Measurement, Undefined
from saebench_canon.specs import DataSpec, SaeSpec, TrainSpec
from saebench_canon.store import Store

if TYPE_CHECKING:
    from saebench_canon.sae import CanonicalSAE

HELD_IN_MEMORY = 12
TRAINED = "training.json"  # beside a trained SAE: how its training went


@dataclass(frozen=True)
class Execution:
    """How cases are computed; none of it is part of what a case is."""

    device: str = "cpu"
    batch_size: int = 4096
    threads: int = 1


@dataclass
class Bench:
    """Measures cases under one registry, store and way of computing."""

    registry: Registry
    store: Store
    execution: Execution = field(default_factory=Execution)
    _held: OrderedDict[str, Any] = field(default_factory=OrderedDict, repr=False)
    _failed: dict[str, Exception] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.identities = Identities(self.registry, self.store)

    def measure(self, case: Case, *, again: bool = True) -> Record:
        """The record of a case, measured through the plugins' hook and stored.

        With `again` false a record that the store has, or that another process is making, is
        taken as it is. Raises whatever the metric raises; the store then keeps the error apart
        from records.
        """
        case_id = self.identities.case(case)
        with self.store.claim(case_id, what=str(case)):
            kept = None if again else self.store.measured(case_id)
            if kept is not None:
                return kept
            try:
                record: Record = self.registry.manager.hook.canon_measure(case=case, bench=self)
            except Exception as error:
                self.store.keep_error(case_id, error_of(case, error))
                raise
            self.store.keep_record(record)
        self.registry.manager.hook.canon_recorded(record=record)
        return record

    def compute(self, case: Case) -> Record:
        """Run the case's metric on its inputs; what the built-in `canon_measure` does."""
        with self._threads():
            return self._compute(case)

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """As many threads as every case has, so that results do not depend on the machine."""
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
        self._check_widths(case)
        lacking = self._lacking(case)
        if lacking is None:
            wanted = list(wanted_by(case, self.registry))
            arguments = [self._argument(each, case) for each in wanted]
            inputs_ready = time.perf_counter()
            measured = case.metric.measure(*arguments, **case.settings)
        else:
            inputs_ready = time.perf_counter()
            measured = {score.name: Undefined(lacking) for score in case.metric.scores}
        scores = scores_of(case.metric, measured)
        tables = self._keep_tables(case_id, measured)
        return Record(
            id=case_id,
            metric=case.metric.name,
            version=case.metric.version,
            settings=dict(case.settings),
            subject=tuple(self._told(sae, case) for sae in case.subject),
            peers=tuple(self._told(sae, case) for sae in case.peers),
            seed=case.seed,
            scores=scores,
            tables=tables,
            marks=marks_of(measured),
            provenance={
                "versions": versions(),
                "device": self.execution.device,
                "threads": self.execution.threads,
                "limited": case.data is not None and case.data.limited,
                "seconds": round(time.perf_counter() - inputs_ready, 3),
                "seconds_inputs": round(inputs_ready - started, 3),
                "data": self._told_data(case),
                "trained": self._trainings(case),
            },
        )

    def input(self, name: str, data: DataSpec | None, sae: SaeSpec | None = None) -> Any:
        """An input by name: from memory, from the store, or made now."""
        if name == "data":
            return data
        if name == "sae":
            assert sae is not None
            return self.sae(sae, data)
        made = self.registry.inputs[name]
        if made.per == "data":
            sae = None
        key = self.identities.input(name, data, sae)

        def make(folder: Path | None = None) -> Any:
            given = {
                "device": self.execution.device,
                "batch_size": self.execution.batch_size,
                "folder": folder,
            }
            return made.make(*[
                given[need] if need in given
                else self.input(need, data, sae) if self.identities.available(need, data)
                else None
                for need in made.needs
            ])  # fmt: skip

        def kept() -> Any:
            if made.save is None or made.load is None:
                return make()
            save = made.save
            what = f"{name} of {sae.name if sae is not None else data.name if data else 'no data'}"
            for _ in range(2):
                folder = self.store.artefact(key, lambda draft: save(make(draft), draft), what=what)
                try:
                    return made.load(folder)
                except Exception:  # damaged on disk, in whatever way its format fails: make it anew
                    self.store.drop_artefact(key)
            raise CanonError(f"the {what} cannot be read back from {self.store.root}")

        return self._hold(key, kept, where=None if data is None else data.where)

    def sae(self, spec: SaeSpec, data: DataSpec | None) -> CanonicalSAE:
        """The canonical SAE of a spec: loaded, or trained first if the store does not have it."""
        key = self.identities.sae(spec, data)
        loaded: CanonicalSAE = self._hold(
            f"{key}/{self.execution.device}", lambda: self._load(spec, data), where=spec.where
        )
        return loaded

    def _load(self, spec: SaeSpec, data: DataSpec | None) -> CanonicalSAE:
        from saebench_canon.sae import canonical

        source = spec.source
        if isinstance(source, TrainSpec):
            source = Ref.parse(f"saelens:{self.trained(spec, data)}")
        if isinstance(source, Ref):
            adapter = self.registry.adapter(source.scheme, where=spec.where)
            return adapter.load(source, device=self.execution.device, dtype=spec.dtype)
        return canonical(source.object)  # type: ignore[attr-defined]

    def trained(self, spec: SaeSpec, data: DataSpec | None) -> Path:
        """The folder of a trained SAE in SAELens' format; trained now if it is not there."""
        source = spec.source
        assert isinstance(source, TrainSpec)
        trainer = self.registry.trainer(source.arch, where=spec.where)

        def make(folder: Path) -> None:
            acts = self.input("train_acts", data)
            trained = trainer.train(
                acts, folder, width=source.width, seed=source.seed, **dict(source.settings)
            )
            text = json.dumps(asdict(trained), sort_keys=True)
            (folder / TRAINED).write_text(text, encoding="utf-8")

        return self.store.artefact(
            self.identities.sae(spec, data), make, what=f"training of {spec.name}"
        )

    def _argument(self, wanted: Wanted, case: Case) -> Any:
        if wanted.input == "seed":
            return case.seed
        if wanted.input == "memo":
            return self.memo
        if not self.identities.available(wanted.input, case.data):
            return None
        saes = (None,) if wanted.saes is None else wanted.saes
        values = tuple(self.input(wanted.input, case.data, sae) for sae in saes)
        if wanted.input == "sae":  # metrics compute on the CPU, where the codes are
            values = tuple(value.to("cpu") for value in values)
        return values if wanted.many else values[0]

    def _lacking(self, case: Case) -> str | None:
        """What the case's metric cannot do without and the suite's data does not give."""
        for wanted in wanted_by(case, self.registry):
            if (
                wanted.input not in OF_CASE
                and wanted.parameter not in case.metric.optional
                and not self.identities.available(wanted.input, case.data)
            ):
                if case.data is None:
                    return "needs activations, and the SAE has no data"
                return f"needs '{wanted.input}', which data without a language model does not give"
        return None

    def memo(
        self, key: Mapping[str, Any], make: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        """Numbers that depend on nothing but the key: computed once for all cases and runs."""

        def write(folder: Path) -> None:
            (folder / "memo.json").write_text(json.dumps(make()), encoding="utf-8")

        what = f"the null {key.get('name', '')}".strip()
        folder = self.store.artefact(fingerprint({"memo": dict(key)}), write, what=what)
        numbers: dict[str, float] = json.loads((folder / "memo.json").read_text(encoding="utf-8"))
        return numbers

    def _hold(self, key: str, make: Callable[[], Any], *, where: str | None) -> Any:
        """What memory has under the key, made if need be; what failed once fails untried."""
        if key in self._failed:
            raise self._failed[key]
        if key not in self._held:
            try:
                with placed(where):
                    self._held[key] = make()
            except Exception as error:
                self._failed[key] = error
                raise
            while len(self._held) > HELD_IN_MEMORY:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]

    def _check_widths(self, case: Case) -> None:
        """Refuse SAEs whose input is not as wide as the activations, or as each other's."""
        saes = [self.sae(sae, case.data) for sae in case.subject]
        width = saes[0].d
        if set(case.metric.inputs) - {*SUBJECTS[case.metric.of], *OF_CASE} and (
            self.identities.available("acts", case.data)
        ):
            width = self.input("acts", case.data).d
        for spec, sae in zip(case.subject, saes, strict=True):
            if sae.d != width:
                raise CanonError(
                    f"SAE '{spec.name}' reads activations of width {sae.d}, and these are {width}",
                    where=spec.where,
                )

    def _keep_tables(self, case_id: str, measured: Any) -> dict[str, str]:
        if not isinstance(measured, Measurement):
            return {}
        return {
            name: self.store.keep_table(case_id, name, partial(table.to_parquet, index=False))
            for name, table in sorted(measured.tables.items())
        }

    def _trainings(self, case: Case) -> dict[str, Any]:
        """How the subject's SAEs were trained here: tokens seen, passes over the data, steps."""
        told = {}
        for sae in case.subject:
            if isinstance(sae.source, TrainSpec):
                text = (self.trained(sae, case.data) / TRAINED).read_text(encoding="utf-8")
                told[self.identities.sae(sae, case.data)] = json.loads(text)
        return told

    def _told(self, sae: SaeSpec, case: Case) -> dict[str, str]:
        digest = self.identities.sae(sae, case.data)
        source = sae.source
        if isinstance(source, TrainSpec):
            return {"ref": f"train:{source.arch}/{source.width}/{source.seed}", "digest": digest}
        return {"ref": str(source), "digest": digest}

    def _told_data(self, case: Case) -> dict[str, Any] | None:
        if case.data is None:
            return None
        told: dict[str, Any] = {"digest": self.identities.data(case.data)}
        if self.identities.available("acts", case.data) and "acts" in case.metric.inputs:
            acts = self.input("acts", case.data)
            told |= {"tokens": len(acts), "documents": int(acts.doc.unique().numel())}
        return told


def error_of(case: Case, error: BaseException) -> dict[str, Any]:
    """An error as it is kept: a sentence, and the traceback where it is no user's mistake."""
    if isinstance(error, CanonError):
        sentence, trace = str(error), ""
    else:
        sentence = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
    return {"case": str(case), "metric": case.metric.name, "error": sentence, "traceback": trace}
