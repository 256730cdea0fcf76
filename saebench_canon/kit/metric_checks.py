"""What a metric promises, looked at on small planted SAEs and activations."""

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

from saebench_canon.bench.bench import Bench
from saebench_canon.bench.identity import OF_CASE, wanted_by
from saebench_canon.bench.store import Store
from saebench_canon.kit import planted
from saebench_canon.kit.findings import SkippedError, WrongError, check
from saebench_canon.kit.surroundings import SLOW, fresh_imports, leaves_random_states, module_name
from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.record import Record
from saebench_canon.plugin.registry import Registry
from saebench_canon.plugin.role import ROLES
from saebench_canon.suite.words import words_of

CLOSE = 1e-4  # how far a score may move when latents change places, relative or absolute
SEED = 0
TOO_MANY = 4  # names in a sentence


@dataclass(frozen=True)
class Seen:
    """One measurement: the record, its tables, and the inputs that the metric changed."""

    record: Record
    tables: dict[str, pd.DataFrame]
    changed: tuple[str, ...]

    @property
    def values(self) -> dict[str, float | None]:
        """The scores' values; None where undefined."""
        return {name: score["value"] for name, score in self.record.scores.items()}


@dataclass
class Measured:
    """A metric, settings for it, and its measurements on the planted SAEs."""

    metric: Metric
    settings: Mapping[str, Any]
    count_dead: frozenset[str]
    registry: Registry

    @cached_property
    def first(self) -> Seen:
        """The measurement that others are held against."""
        try:
            return self.measure()
        except Exception as error:
            raise SkippedError("it does not measure") from error

    def measure(
        self,
        change: Callable[[planted.World], planted.World] = lambda world: world,
        *,
        data: bool = True,
    ) -> Seen:
        """Measure the subject, changed first, with nothing kept from before."""
        changed: list[str] = []

        def guarded(*given: Any, **settings: Any) -> Any:
            before = [_digest(each) for each in given]
            measured = self.metric.measure(*given, **settings)
            names = zip(self.metric.inputs, given, before, strict=True)
            changed.extend(name for name, each, was in names if _digest(each) != was)
            return measured

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
        return Seen(record, tables, tuple(changed))


def _digest(value: Any) -> str:
    """A digest of every tensor inside a value."""
    digest = hashlib.blake2b(digest_size=16)

    def add(each: Any) -> None:
        if isinstance(each, torch.Tensor):
            digest.update(f"{each.dtype}{tuple(each.shape)}".encode())
            flat = each.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        elif isinstance(each, tuple | list):
            for part in each:
                add(part)
        elif isinstance(each, dict):
            for key in sorted(each, key=str):
                digest.update(str(key).encode())
                add(each[key])
        elif is_dataclass(each) and not isinstance(each, type):
            for part in fields(each):
                add(getattr(each, part.name))
        elif isinstance(each, int | float | str | bool | None):
            digest.update(repr(each).encode())

    add(value)
    return digest.hexdigest()


@check("it says what it measures")
def told(it: Measured) -> str:
    """The function's docstring is the metric's help; scores are told apart."""
    if not it.metric.help.strip():
        raise WrongError("the function has no docstring, which is the metric's help")
    names = [score.name for score in it.metric.scores]
    if not names:
        raise WrongError("it declares no score")
    if twice := {name for name in names if names.count(name) > 1}:
        raise WrongError(f"it declares {min(twice)} twice")
    for score in it.metric.scores:
        if score.null is not None and score.null not in names:
            raise WrongError(f"the null of {score.name}, '{score.null}', is no score of it")
    return it.metric.help.splitlines()[0]


@check("its settings have defaults of plain types")
def settings(it: Measured) -> str:
    """A case's id is made of them, and a suite's values are checked against them."""
    known = inspect.signature(it.metric.measure).parameters.values()
    names = {each.name for each in known if each.kind is each.KEYWORD_ONLY}
    if bare := names - set(it.metric.settings):
        raise WrongError(f"the setting '{min(bare)}' has no default")
    for name, default in it.metric.settings.items():
        try:
            json.dumps(default, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise WrongError(f"the default of '{name}' is {default!r}: {error}") from error
        if (
            default is None
            and name not in it.metric.opens
            and not _typed(it.metric.kinds.get(name, ""))
        ):
            raise WrongError(
                f"the default of '{name}' is None: annotate it, such as {name}: int | None = None"
            )
    for name in it.settings:
        if name not in it.metric.settings:
            raise WrongError(f"there is no setting '{name}'")
    return ", ".join(f"{name} = {value!r}" for name, value in it.metric.settings.items()) or "none"


def _typed(annotation: str) -> bool:
    plain = {each.strip() for each in annotation.split("|")} & {"int", "float", "str", "bool"}
    return bool(plain or words_of(annotation))


@check("its inputs are known")
def inputs(it: Measured) -> str:
    """Every positional parameter is an input, by the roles of its subject."""
    case = planted.world(it.metric.of).case(it.metric, {}, SEED, None)
    wanted = [each.parameter for each in wanted_by(case, it.registry)]
    return ", ".join(wanted)


@check("importing it imports no slow library")
def light(it: Measured) -> str:
    """`plan`, `show` and `ls` import every metric."""
    function = inspect.unwrap(it.metric.measure)
    at_import, _ = fresh_imports(function)
    if at_import:
        raise WrongError(
            f"importing {module_name(function)} imports {' and '.join(at_import)}:"
            " import in the function"
        )
    return f"neither {SLOW[0]} nor {', '.join(SLOW[1:])}"


@check("it returns every score it declares")
def returns(it: Measured) -> str:
    """A finite number, or why it is undefined; its tables have what its roles need."""
    seen = it.measure()
    for role in it.metric.roles:
        for table, columns in ROLES[role].tables.items():
            if table in seen.tables and (lacking := {*columns} - {*seen.tables[table].columns}):
                what = f"the role '{role}' needs a column '{min(lacking)}' in the table '{table}'"
                raise WrongError(what)
    undefined = {name: s["reason"] for name, s in seen.record.scores.items() if s["value"] is None}
    if len(undefined) == len(seen.values):
        reasons = "; ".join(dict.fromkeys(undefined.values()))
        raise SkippedError(f"every score is undefined here: {reasons}")
    said = f"{len(seen.values) - len(undefined)} of {len(seen.values)} with a number"
    return said + "".join(f"; {name}: {reason}" for name, reason in list(undefined.items())[:1])


@check("without data it says what it lacks")
def dataless(it: Measured) -> str:
    """It measures what decoders tell, or gives reasons; it does not fail."""
    values = it.measure(data=False).values
    measured = [name for name, value in values.items() if value is not None]
    return f"{len(measured)} of {len(values)} with a number"


@check("the same seed gives the same scores")
def repeats(it: Measured) -> str:
    """Scores and tables, to the last digit."""
    first, again = it.first, it.measure()
    if moved := _moved(first.values, again.values, close=0.0):
        raise WrongError(f"at a second measurement {_differ(moved)}")
    for name, table in first.tables.items():
        if not table.equals(again.tables[name]):
            raise WrongError(f"the table {name} differs at a second measurement")
    return f"{len(first.values)} scores, {len(first.tables)} tables"


@check("global random numbers are left alone")
def quiet(it: Measured) -> str:
    """A metric's own randomness comes from its seed."""
    _ = it.first  # what is made once may draw; and it skips what does not measure
    leaves_random_states(it.measure)
    return "of random, numpy and torch"


@check("its inputs are left as they were")
def untouched(it: Measured) -> str:
    """Other metrics work on the same tensors."""
    if it.first.changed:
        raise WrongError(f"it changes {' and '.join(it.first.changed)} in place")
    return ", ".join(each for each in it.metric.inputs if each not in OF_CASE)


@check("the order of latents is moot")
def orderless(it: Measured) -> str:
    """Every SAE's latents change places."""
    seen = it.measure(lambda world: _each(world, planted.permuted))
    if moved := _moved(it.first.values, seen.values, close=CLOSE):
        raise WrongError(f"with latents in another order {_differ(moved)}")
    return f"scores within {CLOSE:g}"


@check("dead latents count for nothing")
def deathless(it: Measured) -> str:
    """Latents that are never active are appended to every SAE."""
    seen = it.measure(lambda world: _each(world, planted.with_dead))
    moved = _moved(it.first.values, seen.values, close=CLOSE)
    allowed = sorted(moved.keys() & it.count_dead)
    for name in allowed:
        del moved[name]
    if moved:
        raise WrongError(f"with dead latents appended {_differ(moved)}")
    return f"scores within {CLOSE:g}" + (f"; but for {', '.join(allowed)}" if allowed else "")


def _each(world: planted.World, change: Callable[[Any], Any]) -> planted.World:
    return planted.World(
        tuple(change(sae) for sae in world.subject), tuple(change(sae) for sae in world.peers)
    )


Moved = dict[str, tuple[float | None, float | None]]


def _moved(
    first: Mapping[str, float | None], second: Mapping[str, float | None], *, close: float
) -> Moved:
    """The scores that are not the same, with both values."""
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
    told = [f"{name} is {_number(b)}, not {_number(a)}" for name, (a, b) in moved.items()]
    rest = f" and {len(told) - TOO_MANY} more" if len(told) > TOO_MANY else ""
    return ", ".join(told[:TOO_MANY]) + rest


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"


CHECKS = [
    told, settings, inputs, light, returns, dataless, repeats, quiet, untouched, orderless,
    deathless,
]  # fmt: skip
