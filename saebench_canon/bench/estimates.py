"""Roughly how much time, memory and download a plan takes, before anything is computed."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from saebench_canon.bench import costs
from saebench_canon.bench.identity import Identities, needed_inputs
from saebench_canon.bench.measured_seconds import MeasuredSeconds, measured_seconds
from saebench_canon.bench.plan import Plan
from saebench_canon.bench.sizes import L0_SHARE, SaeSize, sizes_of
from saebench_canon.plugin.cost import CaseSize, Cost, Dictionary, Work
from saebench_canon.plugin.data import DataSize, DataSpec
from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry
from saebench_canon.saes.memory_needed import ITEM, sae_bytes, size
from saebench_canon.saes.source import Checkpoint
from saebench_canon.suite.cases import Case
from saebench_canon.suite.specs import SaeSpec

IN_MEMORY = 4  # SAEs, with their codes and losses, among the 12 values in a worker's memory
PARTS = 3  # parts of the time that are listed
SHORT = 10.0  # seconds up to which no parts are listed
STARTING = "starting"


@dataclass(frozen=True)
class Forecast:
    """What the missing cases will take: seconds by part, bytes, and what is not known."""

    parts: Mapping[str, float]  # seconds on one core
    unshared: float  # seconds of them that workers cannot share
    memory: float  # bytes of a worker
    largest: str  # the part that takes most of the memory, if one does
    download: int  # bytes
    downloads: int  # SAEs and models to download
    unsized: tuple[str, ...]  # what will be downloaded, of unknown size
    unknown: tuple[str, ...]  # what time and memory do not include
    longest: float = 0.0  # seconds of the longest case, which workers cannot share
    earlier: tuple[MeasuredSeconds, ...] = ()  # of metrics whose cost is known from records only
    l0_assumed: tuple[str, ...] = ()  # SAEs whose L0 is not known

    def seconds(self, cores: int) -> float:
        """Seconds with one worker on each core."""
        shared = sum(self.parts.values()) - self.unshared
        return self.unshared + max(shared / cores, self.longest)


def measured_speed() -> float:
    """float32 multiply-adds per second of one core, measured for a tenth of a second."""
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
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def estimate(plan: Plan, registry: Registry, *, speed: float) -> Forecast:
    """What the cases without a record will take, at `speed` multiply-adds per second."""
    sums = _Sums(plan, registry)
    for case, case_id in zip(plan.cases, plan.ids, strict=True):
        if plan.state(case_id) != "measured":
            sums.add_case(case)
    return sums.total(speed)


@dataclass
class _Sums:
    """Sums over cases; what several cases share is counted once."""

    plan: Plan
    registry: Registry
    work: dict[str, Work] = field(default_factory=lambda: defaultdict(Work))
    unshared: Work = field(default_factory=Work)
    cases: list[Work] = field(default_factory=list)
    counted: set[tuple[str, ...]] = field(default_factory=set)
    sae_memory: dict[str, float] = field(default_factory=dict)  # bytes of an SAE and its codes
    model_memory: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    download: int = 0
    downloads: int = 0
    unsized: dict[str, None] = field(default_factory=dict)  # in order
    unknown: dict[str, None] = field(default_factory=dict)
    measured_seconds: dict[str, MeasuredSeconds | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data, self.saes = sizes_of(self.plan.suite)

    @cached_property
    def identities(self) -> Identities | None:
        """Fingerprints, to look artefacts up; None if the store has no artefacts."""
        if not (self.plan.store.root / "artefacts").is_dir():
            return None
        return Identities(self.registry, self.plan.store)

    def add_case(self, case: Case) -> None:
        """Add a case and the inputs it needs."""
        if not self.counted:
            self.work[STARTING] = Work(fixed=costs.START)
        for sae in (*case.subject, *case.peers):
            self._add_sae(sae, case.data)
        for name in case.metric.sae_settings:
            self._add_named(case.settings.get(name))
        for needed in needed_inputs(case, self.registry):
            for spec in needed.saes or (None,):
                self._add_input(needed.input, case.data, spec)
        n = self._scored(case.data)
        sizes = [self._dictionary(sae) for sae in case.subject]
        known = [dictionary for dictionary in sizes if dictionary is not None]
        if len(known) < len(sizes):
            return
        size = CaseSize(n, tuple(known), case.settings, self._loss_with(case.data, known))
        cost = self._cost(case.metric, size)
        if cost is not None:
            self.work[case.label] += cost.work
            self.cases.append(cost.work)
            self._peak(f"{case.label} of {case.name}", cost.memory)

    def _cost(self, metric: Metric, size: CaseSize) -> Cost | None:
        """The cost of a case, by its metric's `cost=` or else by earlier records."""
        if metric.cost is not None:
            try:
                return metric.cost(size)
            except Exception as error:  # a plugin's own code; the plan goes on without it
                message = f"{type(error).__name__}: {error}".rstrip(": ")
                self.unknown[f"the metric {metric.name} (its cost fails, {message})"] = None
                return None
        if metric.name not in self.measured_seconds:
            self.measured_seconds[metric.name] = measured_seconds(metric, self.plan.store)
        records = self.measured_seconds[metric.name]
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
        first = key not in self.counted
        self.counted.add(key)
        return first

    def _peak(self, part: str, memory: float) -> None:
        self.peaks[part] = max(memory, self.peaks.get(part, 0.0))

    def _size(self, data: DataSpec | None) -> DataSize | None:
        return None if data is None else self.data[data.name]

    def _scored(self, data: DataSpec | None) -> int:
        size = self._size(data)
        if data is not None and size is not None and size.scored is None:
            self.unknown[f"the tokens of data {data.name}"] = None
        return size.scored or 0 if size is not None else 0

    def _dictionary(self, sae: SaeSpec) -> Dictionary | None:
        size = self.saes[sae.name]
        if size.d is None or size.width is None:
            self.unknown[f"the size of SAE {sae.name}"] = None
            return None
        return Dictionary(size.d, size.width, size.l0)

    def _add_sae(self, sae: SaeSpec, data: DataSpec | None) -> None:
        """Add an SAE's download or training, and its memory."""
        if not self._once("sae", sae.name):
            return
        size_of_sae = self.saes[sae.name]
        if size_of_sae.download != 0:
            self._add_download(size_of_sae, f"SAE {sae.name}")
        known = self._dictionary(sae)
        if known is None:
            return
        n = self._scored(data)
        weights = sae_bytes(known.d, known.width, sae.dtype)
        self.sae_memory[sae.name] = weights + costs.codes_bytes(n, known)
        settings = sae.source.training
        if settings is not None and not self._has_sae(sae, data):
            self.work["training"] += costs.training(known, settings)
            batch = settings.get("batch_size", 1024)
            self._peak(f"training {sae.name}", costs.training_bytes(known, batch))
            self._add_extraction(data)

    def _add_named(self, text: str | None) -> None:
        """Add the download of an SAE that a setting names."""
        if text is None or not self._once("named", text):
            return
        if Checkpoint(Ref.parse(text), self.registry).to_download(None) != 0:
            self._add_download(SaeSize(None, None, download=None), f"SAE {text}")

    def _add_download(self, sae: SaeSize, title: str) -> None:
        self.downloads += 1
        if sae.download is None:
            self.unsized[title] = None
        else:
            self.download += sae.download

    def _add_input(self, name: str, data: DataSpec | None, sae: SaeSpec | None) -> None:
        """Add an input that the store does not have, and the inputs that it needs."""
        definition = self.registry.inputs.get(name)
        if definition is None or data is None or (definition.per == "sae") != (sae is not None):
            return
        if not definition.available(data) or not self._once(
            name, data.name, sae.name if sae else ""
        ):
            return
        if definition.save is not None and self._has(name, data, sae):
            return
        for need in definition.needs:
            needed = self.registry.inputs.get(need)
            per_sae = needed is not None and needed.per == "sae"
            self._add_input(need, data, sae if per_sae else None)
        size, n = self.data[data.name], self._scored(data)
        known = None if sae is None else self._dictionary(sae)
        if name == "codes" and known is not None:
            self.work["encoding"] += costs.encoding(n, known)
            self._peak("encoding", costs.encoding_bytes(known))
        elif name == "extracted":
            self._add_extraction(data)
        elif name in ("loss", "baseline") and size.model is not None:
            passes = 1 if name == "loss" else 3
            self.work["losses"] += costs.losses(size, size.model, passes)
        elif name == "lm":
            self._add_model(data)

    def _add_extraction(self, data: DataSpec | None) -> None:
        if data is None or not data.gives("lm") or not self._once("activations", data.name):
            return
        if self._has("extracted", data, None):
            return
        self._add_model(data)
        size = self.data[data.name]
        if size.hub_text is not None and not self._has("all_tokens", data, None):
            self.unsized[f"the text {size.hub_text}"] = None
        if size.tokens is None or size.model is None:
            return
        work = costs.extraction(size, size.tokens, size.model)
        self.work["activations"] += work
        self.unshared += work

    def _add_model(self, data: DataSpec) -> None:
        """Add a language model's download and memory."""
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
        self.model_memory[name] = costs.model_bytes(model, ITEM[data.dtype])

    def _has(self, name: str, data: DataSpec, sae: SaeSpec | None) -> bool:
        if self.identities is None:
            return False
        return self._stored(self.identities.input(name, data, sae))

    def _has_sae(self, sae: SaeSpec, data: DataSpec | None) -> bool:
        return self.identities is not None and self._stored(self.identities.sae(sae, data))

    def _stored(self, fingerprint: str) -> bool:
        return (self.plan.store.root / "artefacts" / fingerprint).is_dir()

    def total(self, speed: float) -> Forecast:
        """The sums, in seconds and bytes."""
        saes = sum(sorted(self.sae_memory.values())[-IN_MEMORY:])
        files = max((_in_memory(self.data[name], data)
                     for name, data in self.plan.suite.data.items()), default=0.0)  # fmt: skip
        largest = max(self.peaks, key=lambda part: self.peaks[part], default="")
        memory = costs.BASE + saes + files + max(self.model_memory.values(), default=0.0)
        memory += self.peaks.get(largest, 0.0)
        return Forecast(
            parts={name: work.seconds(speed) for name, work in self.work.items()},
            unshared=self.unshared.seconds(speed),
            memory=memory,
            largest=largest if 2 * self.peaks.get(largest, 0) > memory else "",
            download=self.download,
            downloads=self.downloads,
            unsized=tuple(self.unsized),
            unknown=tuple(self.unknown),
            longest=max((work.seconds(speed) for work in self.cases), default=0.0),
            earlier=tuple(
                records for records in self.measured_seconds.values() if records is not None
            ),
            l0_assumed=tuple(name for name in self.sae_memory if self.saes[name].l0_assumed),
        )


def _in_memory(size: DataSize, data: DataSpec) -> float:
    """Bytes of activations in memory; those that a model gives are mapped from a file."""
    return 0.0 if data.gives("lm") else 4.0 * (size.tokens or 0) * (size.d or 0)


def lines(forecast: Forecast, *, cores: int, memory: int | None = None) -> Iterator[str]:
    """The estimate as lines of text: time, memory, download; `memory` is this machine's."""
    if not forecast.parts:
        return
    if set(forecast.parts) == {STARTING}:
        yield "time      not known"
        yield "memory    not known"
    else:
        rough = "at least" if forecast.unknown else "about"
        yield from _time(forecast, rough, cores)
        most = f", most of it for {forecast.largest}" if forecast.largest else ""
        too_little = memory is not None and memory < forecast.memory
        short = f"; this machine has {size(memory or 0)}" if too_little else ""
        yield f"memory    {rough} {size(forecast.memory)} a worker{most}{short}{_assumed(forecast)}"
    yield f"download  {_say_download(forecast)}"
    for records in forecast.earlier:
        yield f"records   {_say_measured(records)}"
    if forecast.unknown:
        yield f"left out  {_few(forecast.unknown)}: not known here"


def _assumed(forecast: Forecast) -> str:
    """That an L0 was assumed: codes of a denser SAE take more memory."""
    if not forecast.l0_assumed:
        return ""
    return f"; the L0 of {_few(forecast.l0_assumed)} is not known and taken as d/{1 / L0_SHARE:.0f}"


def _time(forecast: Forecast, rough: str, cores: int) -> Iterator[str]:
    on_one = forecast.seconds(1)
    on_all = duration(forecast.seconds(cores))
    many = f"{on_all} on {cores} cores (-n {cores}), " if cores > 1 else ""
    yield f"time      {rough} {many}{duration(on_one)} on one"
    longest = sorted(forecast.parts.items(), key=lambda part: -part[1])[:PARTS]
    parts = [f"{name} {duration(seconds)}" for name, seconds in longest if seconds > on_one / 20]
    if on_one > SHORT:
        yield f"          of it {', '.join(parts)}"


def _say_measured(records: MeasuredSeconds) -> str:
    """Where the time of a metric without `cost=` is from."""
    seconds = "less than 1 s" if records.seconds < 1 else duration(records.seconds)
    mean = "as 1 earlier record took"
    if records.count > 1:
        mean = f"the mean of {records.count} earlier records"
    return f"{records.metric}: {seconds} a case, {mean}, whatever its size"


def _say_download(forecast: Forecast) -> str:
    if not forecast.downloads and not forecast.unsized:
        return "none"
    sized = f"about {size(forecast.download)}" if forecast.download else ""
    more = f"{_few(forecast.unsized)}, of unknown size," if forecast.unsized else ""
    return " and ".join(part for part in (sized, more) if part).removesuffix(",")


def _few(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    if len(listed) <= most:
        return ", ".join(listed)
    return f"{', '.join(listed[: most - 1])} and {len(listed) - most + 1} more"


def duration(seconds: float) -> str:
    """A duration in words, with at most two digits."""
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
