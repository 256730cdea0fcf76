"""What a metric promises, checked on small SAEs and activations with planted directions."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from saebench_canon.bench.identity import OF_CASE, needed_inputs
from saebench_canon.bench.measure import Bench
from saebench_canon.bench.store import Store
from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.record import Record
from saebench_canon.plugin.registry import Registry
from saebench_canon.plugin.role import ROLES
from saebench_canon.plugin_kit import planted
from saebench_canon.plugin_kit.findings import SkippedError, WrongError, check
from saebench_canon.plugin_kit.surroundings import (
    SLOW,
    fresh_imports,
    leaves_random_states,
    module_name,
)
from saebench_canon.suite.names import words_of

CLOSE = 1e-4  # how much a score may change with the order of latents, relative or absolute
SEED = 0
MOST = 4  # names in a sentence


@dataclass(frozen=True)
class MetricRun:
    """One run of a metric: its record, its tables, and the inputs that it changed."""

    record: Record
    tables: dict[str, pd.DataFrame]
    changed: tuple[str, ...]

    @property
    def values(self) -> dict[str, float | None]:
        """The scores' values; None where undefined."""
        return {name: score["value"] for name, score in self.record.scores.items()}


@dataclass
class MetricUnderTest:
    """A metric, settings for it, and its measurements on the planted SAEs."""

    metric: Metric
    settings: Mapping[str, Any]
    count_dead: frozenset[str]
    registry: Registry

    @cached_property
    def first(self) -> MetricRun:
        """The run with which others are compared."""
        try:
            return self.measure()
        except Exception as error:
            raise SkippedError("measuring fails") from error

    def measure(
        self,
        change: Callable[[planted.World], planted.World] = lambda world: world,
        *,
        data: bool = True,
    ) -> MetricRun:
        """Measure the changed subject with an empty store."""
        changed: list[str] = []

        def guarded(*inputs: Any, **settings: Any) -> Any:
            digests = [_digest(value) for value in inputs]
            measurement = self.metric.measure(*inputs, **settings)
            named = zip(self.metric.inputs, inputs, digests, strict=True)
            changed.extend(name for name, value, digest in named if _digest(value) != digest)
            return measurement

        with TemporaryDirectory(prefix="canon-check-") as folder:
            file = planted.write_activations(Path(folder)) if data else None
            bench = Bench(self.registry, Store(Path(folder) / "store"))
            world = change(planted.world(self.metric.of))
            metric = replace(self.metric, measure=guarded)
            record = bench.compute(world.case(metric, dict(self.settings), SEED, file))
            tables = {
                name: pd.read_parquet(bench.store.root / path)
                for name, path in record.tables.items()
            }
        return MetricRun(record, tables, tuple(changed))


def _digest(value: Any) -> str:
    """A digest of every tensor inside a value."""
    digest = hashlib.blake2b(digest_size=16)

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            flat = part.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        elif isinstance(part, tuple | list):
            for entry in part:
                add(entry)
        elif isinstance(part, dict):
            for key in sorted(part, key=str):
                digest.update(str(key).encode())
                add(part[key])
        elif is_dataclass(part) and not isinstance(part, type):
            for field in fields(part):
                add(getattr(part, field.name))
        elif isinstance(part, int | float | str | bool | None):
            digest.update(repr(part).encode())

    add(value)
    return digest.hexdigest()


@check("it documents what it measures")
def documented(candidate: MetricUnderTest) -> str:
    """The function's docstring is the metric's help; score names are unique."""
    if not candidate.metric.help.strip():
        raise WrongError("the function has no docstring, which is the metric's help")
    names = [score.name for score in candidate.metric.scores]
    if not names:
        raise WrongError("it declares no score")
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise WrongError(f"it declares {min(duplicates)} twice")
    for score in candidate.metric.scores:
        if score.null is not None and score.null not in names:
            raise WrongError(f"the null of {score.name}, '{score.null}', is none of its scores")
    return candidate.metric.help.strip().partition("\n")[0]


@check("its settings have defaults of plain types")
def settings(candidate: MetricUnderTest) -> str:
    """They are part of a case's id, and a suite's values are checked against their types."""
    parameters = inspect.signature(candidate.metric.measure).parameters.values()
    names = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    if bare := names - set(candidate.metric.settings):
        raise WrongError(f"the setting '{min(bare)}' has no default")
    for name, default in candidate.metric.settings.items():
        try:
            json.dumps(default, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise WrongError(f"the default of '{name}' is {default!r}: {error}") from error
        if (
            default is None
            and name not in candidate.metric.sae_settings
            and not _typed(candidate.metric.kinds.get(name, ""))
        ):
            raise WrongError(
                f"the default of '{name}' is None: annotate it, as in {name}: int | None = None"
            )
    for name in candidate.settings:
        if name not in candidate.metric.settings:
            raise WrongError(f"there is no setting '{name}'")
    return (
        ", ".join(f"{name} = {value!r}" for name, value in candidate.metric.settings.items())
        or "none"
    )


def _typed(annotation: str) -> bool:
    plain = {word.strip() for word in annotation.split("|")} & {"int", "float", "str", "bool"}
    return bool(plain or words_of(annotation))


@check("its inputs are known")
def inputs(candidate: MetricUnderTest) -> str:
    """Every positional parameter is an input, by the roles of its subject."""
    case = planted.world(candidate.metric.of).case(candidate.metric, {}, SEED, None)
    requests = needed_inputs(case, candidate.registry)
    return ", ".join(request.parameter for request in requests)


@check("importing it imports no slow library")
def slow_imports(candidate: MetricUnderTest) -> str:
    """`plan`, `show` and `ls` import every metric."""
    function = inspect.unwrap(candidate.metric.measure)
    at_import, _ = fresh_imports(function)
    if at_import:
        raise WrongError(
            f"importing {module_name(function)} imports {' and '.join(at_import)}:"
            " move the import into the function"
        )
    return f"neither {SLOW[0]} nor {', '.join(SLOW[1:])}"


@check("it returns every score it declares")
def returns(candidate: MetricUnderTest) -> str:
    """A finite number, or why it is undefined; its tables have what its roles need."""
    run = candidate.measure()
    for role in candidate.metric.roles:
        for table, columns in ROLES[role].tables.items():
            if table in run.tables and (lacking := {*columns} - {*run.tables[table].columns}):
                fault = f"the role '{role}' needs a column '{min(lacking)}' in the table '{table}'"
                raise WrongError(fault)
    scores = run.record.scores
    undefined = {name: s["reason"] for name, s in scores.items() if s["value"] is None}
    if len(undefined) == len(scores):
        reasons = "; ".join(dict.fromkeys(undefined.values()))
        raise SkippedError(f"every score is undefined on the planted SAEs: {reasons}")
    defined = f"{len(scores) - len(undefined)} of {len(scores)} with a number"
    return defined + "".join(f"; {name}: {reason}" for name, reason in list(undefined.items())[:1])


@check("it does not fail without data")
def without_data(candidate: MetricUnderTest) -> str:
    """Scores that need no data have a number; the others are undefined with a reason."""
    values = candidate.measure(data=False).values
    measured = [name for name, value in values.items() if value is not None]
    return f"{len(measured)} of {len(values)} with a number"


@check("the same seed gives the same scores")
def same_seed(candidate: MetricUnderTest) -> str:
    """Scores and tables, to the last digit."""
    first, second = candidate.first, candidate.measure()
    if moved := _moved(first.values, second.values, close=0.0):
        raise WrongError(f"at a second measurement {_differ(moved)}")
    for name, table in first.tables.items():
        if not table.equals(second.tables[name]):
            raise WrongError(f"the table {name} differs at a second measurement")
    return f"{len(first.values)} scores, {len(first.tables)} tables"


@check("the global random state is unchanged")
def random_state(candidate: MetricUnderTest) -> str:
    """A metric's own randomness comes from its seed."""
    _ = candidate.first  # inputs computed once may draw; and skips if measuring fails
    leaves_random_states(candidate.measure)
    return "for random, numpy and torch"


@check("its inputs are unchanged")
def inputs_unchanged(candidate: MetricUnderTest) -> str:
    """Other metrics use the same tensors."""
    if candidate.first.changed:
        raise WrongError(f"it changes {' and '.join(candidate.first.changed)} in place")
    return ", ".join(name for name in candidate.metric.inputs if name not in OF_CASE)


@check("the order of latents does not matter")
def latent_order(candidate: MetricUnderTest) -> str:
    """The latents of every SAE are permuted."""
    run = candidate.measure(lambda world: _every_sae(world, planted.permuted))
    if moved := _moved(candidate.first.values, run.values, close=CLOSE):
        raise WrongError(f"with latents in another order {_differ(moved)}")
    return f"scores within {CLOSE:g}"


@check("dead latents do not matter")
def dead_latents(candidate: MetricUnderTest) -> str:
    """Latents that are never active are appended to every SAE."""
    run = candidate.measure(lambda world: _every_sae(world, planted.with_dead))
    moved = _moved(candidate.first.values, run.values, close=CLOSE)
    allowed = sorted(moved.keys() & candidate.count_dead)
    for name in allowed:
        del moved[name]
    if moved:
        raise WrongError(f"with dead latents appended {_differ(moved)}")
    return f"scores within {CLOSE:g}" + (f"; except {', '.join(allowed)}" if allowed else "")


def _every_sae(world: planted.World, change: Callable[[Any], Any]) -> planted.World:
    return planted.World(
        tuple(change(sae) for sae in world.subject), tuple(change(sae) for sae in world.peers)
    )


Moved = dict[str, tuple[float | None, float | None]]


def _moved(
    first: Mapping[str, float | None], second: Mapping[str, float | None], *, close: float
) -> Moved:
    """The scores that differ, with both values."""
    moved: Moved = {}
    for name, a in first.items():
        b = second.get(name)
        with suppress(TypeError):
            if abs(a - b) <= close * max(1.0, abs(a)):  # type: ignore[operator, arg-type]
                continue
        if a is None and b is None:
            continue
        moved[name] = (a, b)
    return moved


def _differ(moved: Moved) -> str:
    changes = [f"{name} is {_number(b)}, not {_number(a)}" for name, (a, b) in moved.items()]
    rest = f" and {len(changes) - MOST} more" if len(changes) > MOST else ""
    return ", ".join(changes[:MOST]) + rest


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"


CHECKS = [
    documented, settings, inputs, slow_imports, returns, without_data, same_seed, random_state,
    inputs_unchanged, latent_order, dead_latents,
]  # fmt: skip
