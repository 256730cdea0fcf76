"""Roughly how long a plan takes, how much memory and how much download, before anything is done."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from saebench_canon.bench import costs
from saebench_canon.bench.earlier import Earlier, earlier
from saebench_canon.bench.identity import Identities, needed_inputs
from saebench_canon.bench.plan import Plan
from saebench_canon.bench.sizes import SaeSize, sizes_of
from saebench_canon.plugin.cost import CaseSize, Cost, Dictionary, Work
from saebench_canon.plugin.data import DataSize, DataSpec
from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry
from saebench_canon.saes.memory import ITEM, sae_bytes, size
from saebench_canon.saes.source import Checkpoint
from saebench_canon.suite.cases import Case
from saebench_canon.suite.specs import SaeSpec

HELD = 4  # SAEs with their codes and losses among the 12 things that a worker keeps in memory
NAMED = 3  # parts of the time that are named
SHORT = 10.0  # seconds up to which no parts are named
STARTING = "starting"


@dataclass(frozen=True)
class Forecast:
    """What is still to be done: seconds by part, bytes, and what is not known."""

    parts: Mapping[str, float]  # seconds on one core
    alone: float  # seconds of them that no other worker can share
    memory: float  # bytes of a worker
    largest: str  # what takes most of the memory, if one thing does
    download: int  # bytes
    downloads: int  # SAEs and models to download
    unsized: tuple[str, ...]  # what will be downloaded, nobody here knows how much
    unknown: tuple[str, ...]  # what time and memory leave out
    longest: float = 0.0  # seconds of the longest case, which workers cannot share either
    earlier: tuple[Earlier, ...] = ()  # what is told of metrics by their records alone

    def seconds(self, cores: int) -> float:
        """Seconds with a worker on each of so many cores."""
        shared = sum(self.parts.values()) - self.alone
        return self.alone + max(shared / cores, self.longest)


def measured_speed() -> float:
    """Multiply-adds a second of one core, float32, from a tenth of a second of products."""
    import numpy as np

    side = 512
    matrix = np.full((side, side), 0.5, dtype=np.float32)
    matrix @ matrix  # loads the library
    count, started = 0, time.process_time()  # of all threads, so that it is one core's speed
    while time.process_time() - started < 0.1:
        matrix @ matrix
        count += 1
    return count * side**3 / (time.process_time() - started)


def cores() -> int:
    """How many cores this process may use."""
    there = getattr(os, "sched_getaffinity", None)
    return len(there(0)) if there is not None else os.cpu_count() or 1


def estimate(plan: Plan, registry: Registry, *, speed: float) -> Forecast:
    """What the cases that have no record yet will take, at so many multiply-adds a second."""
    counted = _Counted(plan, registry)
    left = [
        case
        for case, case_id in zip(plan.cases, plan.ids, strict=True)
        if plan.state(case_id) != "measured"
    ]
    for case in left:
        counted.case(case)
    return counted.total(speed)


@dataclass
class _Counted:
    """Sums over cases; what several cases share is counted once."""

    plan: Plan
    registry: Registry
    work: dict[str, Work] = field(default_factory=lambda: defaultdict(Work))
    alone: Work = field(default_factory=Work)
    cases: list[Work] = field(default_factory=list)
    done: set[tuple[str, ...]] = field(default_factory=set)
    held: dict[str, float] = field(default_factory=dict)  # bytes of each SAE with its codes
    models: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    download: int = 0
    downloads: int = 0
    unsized: dict[str, None] = field(default_factory=dict)  # in order
    unknown: dict[str, None] = field(default_factory=dict)
    earlier: dict[str, Earlier | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data, self.saes = sizes_of(self.plan.suite)

    @cached_property
    def identities(self) -> Identities | None:
        """Names of what the store has; without artefacts nothing need be identified."""
        if not (self.plan.store.root / "artefacts").is_dir():
            return None
        return Identities(self.registry, self.plan.store)

    def case(self, case: Case) -> None:
        """Count a case and the inputs it needs."""
        if not self.done:
            self.work[STARTING] = Work(fixed=costs.START)
        for sae in (*case.subject, *case.peers):
            self._sae(sae, case.data)
        for name in case.metric.sae_settings:
            self._named(case.settings.get(name))
        for needed in needed_inputs(case, self.registry):
            for spec in needed.saes or (None,):
                self._input(needed.input, case.data, spec)
        found = [self._dictionary(sae) for sae in case.subject]
        n = self._scored(case.data)
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return
        size = CaseSize(n, tuple(known), case.settings, self._loss_with(case.data, known))
        cost = self._cost(case.metric, size)
        if cost is not None:
            self.work[case.label] += cost.work
            self.cases.append(cost.work)
            self._peak(f"{case.label} of {case.name}", cost.memory)

    def _cost(self, metric: Metric, size: CaseSize) -> Cost | None:
        """What a case takes: as its metric says, or else by earlier records."""
        if metric.cost is not None:
            try:
                return metric.cost(size)
            except Exception as error:  # a plugin's own code; the plan goes on without it
                said = f"{type(error).__name__}: {error}".rstrip(": ")
                self.unknown[f"the metric {metric.name} (its cost fails, {said})"] = None
                return None
        if metric.name not in self.earlier:
            self.earlier[metric.name] = earlier(metric, self.plan.store)
        records = self.earlier[metric.name]
        if records is None:
            self.unknown[f"the metric {metric.name}"] = None
            return None
        return Cost(Work(fixed=records.seconds), costs.rows_bytes(size.saes))

    def _loss_with(self, data: DataSpec | None, saes: Iterable[Dictionary]) -> Work:
        size = self._size(data)
        if size is None or size.model is None:
            return Work()
        return costs.loss_with(size, size.model, saes)

    def _once(self, *key: str) -> bool:
        first = key not in self.done
        self.done.add(key)
        return first

    def _peak(self, what: str, taken: float) -> None:
        self.peaks[what] = max(taken, self.peaks.get(what, 0.0))

    def _size(self, data: DataSpec | None) -> DataSize | None:
        return None if data is None else self.data[data.name]

    def _scored(self, data: DataSpec | None) -> int:
        found = self._size(data)
        if data is not None and found is not None and found.scored is None:
            self.unknown[f"the tokens of data {data.name}"] = None
        return found.scored or 0 if found is not None else 0

    def _dictionary(self, sae: SaeSpec) -> Dictionary | None:
        found = self.saes[sae.name]
        if found.d is None or found.width is None:
            self.unknown[f"the size of SAE {sae.name}"] = None
            return None
        return Dictionary(found.d, found.width, found.l0)

    def _sae(self, sae: SaeSpec, data: DataSpec | None) -> None:
        """Count an SAE's download or training, and the memory it takes."""
        if not self._once("sae", sae.name):
            return
        found = self.saes[sae.name]
        if found.download != 0:
            self._download(found, f"SAE {sae.name}")
        known = self._dictionary(sae)
        if known is None:
            return
        n = self._scored(data)
        weights = sae_bytes(known.d, known.width, sae.dtype)
        self.held[sae.name] = weights + costs.codes_bytes(n, known)
        settings = sae.source.training
        if settings is not None and not self._has_sae(sae, data):
            self.work["training"] += costs.training(known, settings)
            batch = settings.get("batch_size", 1024)
            self._peak(f"training {sae.name}", costs.training_bytes(known, batch))
            self._extracted(data)

    def _named(self, text: str | None) -> None:
        """Count the download of an SAE that a setting names."""
        if text is None or not self._once("named", text):
            return
        if Checkpoint(Ref.parse(text), self.registry).to_download(None) != 0:
            self._download(SaeSize(None, None, download=None), f"SAE {text}")

    def _download(self, found: SaeSize, what: str) -> None:
        self.downloads += 1
        if found.download is None:
            self.unsized[what] = None
        else:
            self.download += found.download

    def _input(self, name: str, data: DataSpec | None, sae: SaeSpec | None) -> None:
        """Count an input that the store does not have, and what it is made of."""
        made = self.registry.inputs.get(name)
        if made is None or data is None or (made.per == "sae") != (sae is not None):
            return
        if not made.available(data) or not self._once(name, data.name, sae.name if sae else ""):
            return
        if made.save is not None and self._has(name, data, sae):
            return
        for need in made.needs:
            each = self.registry.inputs.get(need)
            self._input(need, data, sae if each is not None and each.per == "sae" else None)
        found, n = self.data[data.name], self._scored(data)
        known = None if sae is None else self._dictionary(sae)
        if name == "codes" and known is not None:
            self.work["encoding"] += costs.encoding(n, known)
            self._peak("encoding", costs.encoding_bytes(known))
        elif name == "extracted":
            self._extracted(data)
        elif name in ("loss", "baseline") and found.model is not None:
            passes = 1 if name == "loss" else 3
            self.work["losses"] += costs.losses(found, found.model, passes)
        elif name == "lm":
            self._model(data)

    def _extracted(self, data: DataSpec | None) -> None:
        if data is None or not data.gives("lm") or not self._once("activations", data.name):
            return
        if self._has("extracted", data, None):
            return
        self._model(data)
        found = self.data[data.name]
        if found.hub_text is not None and not self._has("all_tokens", data, None):
            self.unsized[f"the text {found.hub_text}"] = None
        if found.tokens is None or found.model is None:
            return
        work = costs.extraction(found, found.tokens, found.model)
        self.work["activations"] += work
        self.alone += work

    def _model(self, data: DataSpec) -> None:
        """Count a language model's download and memory."""
        name = data.lm_source.model
        if not self._once("model", name):
            return
        model = self.data[data.name].model
        if model is None:
            self.unknown[f"the model {name}"] = None
            self.unsized[f"the model {name}"] = None
            self.downloads += 1
            return
        if model.download:
            self.download += model.download
            self.downloads += 1
        self.models[name] = costs.model_bytes(model, ITEM[data.dtype])

    def _has(self, name: str, data: DataSpec, sae: SaeSpec | None) -> bool:
        if self.identities is None:
            return False
        return self._kept(self.identities.input(name, data, sae))

    def _has_sae(self, sae: SaeSpec, data: DataSpec | None) -> bool:
        return self.identities is not None and self._kept(self.identities.sae(sae, data))

    def _kept(self, fingerprint: str) -> bool:
        return (self.plan.store.root / "artefacts" / fingerprint).is_dir()

    def total(self, speed: float) -> Forecast:
        """What was counted, in seconds and bytes."""
        held = sum(sorted(self.held.values())[-HELD:])
        files = max((_in_memory(self.data[name], data)
                     for name, data in self.plan.suite.data.items()), default=0.0)  # fmt: skip
        largest = max(self.peaks, key=lambda what: self.peaks[what], default="")
        memory = costs.BASE + held + files + max(self.models.values(), default=0.0)
        memory += self.peaks.get(largest, 0.0)
        return Forecast(
            parts={name: work.seconds(speed) for name, work in self.work.items()},
            alone=self.alone.seconds(speed),
            memory=memory,
            largest=largest if 2 * self.peaks.get(largest, 0) > memory else "",
            download=self.download,
            downloads=self.downloads,
            unsized=tuple(self.unsized),
            unknown=tuple(self.unknown),
            longest=max((work.seconds(speed) for work in self.cases), default=0.0),
            earlier=tuple(records for records in self.earlier.values() if records is not None),
        )


def _in_memory(found: DataSize, data: DataSpec) -> float:
    """Bytes of activations that are held whole: those that no model gives."""
    return 0.0 if data.gives("lm") else 4.0 * (found.tokens or 0) * (found.d or 0)


def lines(found: Forecast, *, cores: int, there: int | None = None) -> Iterator[str]:
    """The estimate as a person reads it: time, memory, download; `there` is this machine's."""
    if not found.parts:
        return
    if set(found.parts) == {STARTING}:
        yield "time      not known"
        yield "memory    not known"
    else:
        rough = "at least" if found.unknown else "about"
        yield from _time(found, rough, cores)
        most = f", most of it for {found.largest}" if found.largest else ""
        short = f"; this machine has {size(there)}" if there and there < found.memory else ""
        yield f"memory    {rough} {size(found.memory)} a worker{most}{short}"
    yield f"download  {_say_download(found)}"
    for records in found.earlier:
        yield f"records   {_say_earlier(records)}"
    if found.unknown:
        yield f"left out  {_few(found.unknown)}: not known here"


def _time(found: Forecast, rough: str, cores: int) -> Iterator[str]:
    alone = found.seconds(1)
    many = f"{duration(found.seconds(cores))} on {cores} cores (-n {cores}), " if cores > 1 else ""
    yield f"time      {rough} {many}{duration(alone)} on one"
    named = sorted(found.parts.items(), key=lambda part: -part[1])[:NAMED]
    shown = [f"{name} {duration(each)}" for name, each in named if each > alone / 20]
    if alone > SHORT:
        yield f"          of it {', '.join(shown)}"


def _say_earlier(records: Earlier) -> str:
    """Where the time of a metric is from that does not say what it costs."""
    each = "less than 1 s" if records.seconds < 1 else duration(records.seconds)
    of = "1 earlier record" if records.count == 1 else f"{records.count} earlier records"
    mean = f"as {of} took" if records.count == 1 else f"the mean of {of}"
    return f"{records.metric}: {each} a case, {mean}, whatever its size"


def _say_download(found: Forecast) -> str:
    if not found.downloads and not found.unsized:
        return "none"
    sized = f"about {size(found.download)}" if found.download else ""
    more = f"{_few(found.unsized)}, of unknown size," if found.unsized else ""
    return " and ".join(part for part in (sized, more) if part).removesuffix(",")


def _few(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    if len(listed) <= most:
        return ", ".join(listed)
    return f"{', '.join(listed[: most - 1])} and {len(listed) - most + 1} more"


def duration(seconds: float) -> str:
    """Seconds as a person says them, to two digits at most."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 90:
        return f"{10 * round(seconds / 10)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    if hours < 48:
        return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"
    return f"{hours / 24:.0f} days"
