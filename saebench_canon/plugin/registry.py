"""Which plugins there are and what they add: a registry of nouns, a pluggy manager of hooks."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin import hookspecs
from saebench_canon.saes.weights.regular_file import refuse_special

if TYPE_CHECKING:
    from saebench_canon.plugin.adapter import Adapter
    from saebench_canon.plugin.data import DataKind
    from saebench_canon.plugin.input import Input
    from saebench_canon.plugin.metric import Metric
    from saebench_canon.plugin.question import Question
    from saebench_canon.plugin.ref import Ref
    from saebench_canon.plugin.report import Report
    from saebench_canon.plugin.trainer import Trainer

GROUP = hookspecs.PROJECT
BUILT_IN = "built-in"
ROOMS = (
    "saes.formats", "data", "inputs", "metrics", "trainers", "questions", "reports", "bench",
    "latents",
)  # fmt: skip
PREFIX = "_canon_plugin_"  # of the module names of plugin files
NOUNS = (
    "canon_adapters", "canon_data", "canon_inputs", "canon_metrics", "canon_trainers",
    "canon_questions", "canon_reports",
)  # fmt: skip
Noun = TypeVar("Noun")


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    name: str
    reason: str


@dataclass
class Registry:
    """Everything that plugins add, by name; two owners of one name are an error."""

    manager: pluggy.PluginManager
    broken: tuple[Broken, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def adapters(self) -> dict[str, Adapter]:
        """Adapters by scheme; `file` reads each path by the adapter that claims it."""
        from saebench_canon.plugin.file_scheme import LocalAdapter

        adapters = self._collect("canon_adapters", lambda adapter: str(adapter.scheme))
        local = LocalAdapter(self.claim, adapters.__getitem__, self.recognise)
        return {local.scheme: local, **adapters}

    def reader(self, ref: Ref) -> tuple[Adapter, Ref]:
        """The adapter that reads a ref, and the ref with that adapter's scheme."""
        from saebench_canon.plugin.file_scheme import LocalAdapter

        adapter = self.adapter(ref.scheme)
        return adapter.owner(ref) if isinstance(adapter, LocalAdapter) else (adapter, ref)

    @cached_property
    def data(self) -> dict[str, DataKind]:
        """Kinds of data by what picks them in a data table."""
        return self._collect("canon_data", lambda kind: str(kind.title()))

    @property
    def named_data(self) -> dict[str, DataKind]:
        """The kinds of data that share a key, such as the worlds, by the value that picks them."""
        return {kind.named: kind for kind in self.data.values() if kind.named is not None}

    @cached_property
    def inputs(self) -> dict[str, Input]:
        """Inputs by name."""
        return self._collect("canon_inputs", lambda definition: str(definition.name))

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Metrics by name, in the order of tables: as plugins list them, built-in first."""
        return self._collect("canon_metrics", lambda metric: str(metric.name), as_listed=True)

    @cached_property
    def trainers(self) -> dict[str, Trainer]:
        """Trainers by the name of their architecture."""
        return self._collect("canon_trainers", lambda trainer: str(trainer.name))

    @cached_property
    def questions(self) -> dict[str, Question]:
        """Questions by name, in the order of answers: the built-in ones first."""
        return self._collect("canon_questions", lambda question: str(question.name), as_listed=True)

    @cached_property
    def reports(self) -> dict[str, Report]:
        """Reports by the suffix of the files they write."""
        return self._collect("canon_reports", lambda report: str(report.suffix))

    def claim(self, path: Path) -> str | None:
        """The ref of a bare path, from the plugin that knows its format; two are an error.

        A plugin that fails on the path claims nothing; its error is reported if no other claims it.
        """
        claims: dict[str, str] = {}
        failed: list[str] = []
        for claiming in self.manager.hook.canon_claim.get_hookimpls():
            try:
                claim = None if claiming.wrapper else claiming.function(path=path)
            except CanonError:
                raise
            except Exception as error:  # a plugin's code on files of another format
                failed.append(f"'{claiming.plugin_name}' ({type(error).__name__}: {error})")
                continue
            if isinstance(claim, str):
                claims.setdefault(claim, claiming.plugin_name)
            elif claim is not None:
                failed.append(f"'{claiming.plugin_name}' (claims {claim!r}, which is not a ref)")
        if len(claims) > 1:
            owners = " and ".join(f"'{owner}' ({claim})" for claim, owner in claims.items())
            raise CanonError(
                f"more than one plugin knows the format of '{path}': {owners}",
                hint=f"Name one of them: {' or '.join(claims)}.",
            )
        if failed and not claims:
            raise CanonError(
                f"no plugin knows the format of '{path}', and these plugins fail on it: "
                f"{', '.join(failed)}"
            )
        return next(iter(claims), None)

    def recognise(self, path: Path) -> str | None:
        """The scheme of the format that a path looks like, whose plugin may not be installed."""
        scheme: str | None = self.manager.hook.canon_recognise(path=path)
        return scheme

    def metric(self, name: str, *, where: str | None = None) -> Metric:
        """The metric of that name, or an error with the nearest."""
        return self._find(self.metrics, "metric", name, where)

    def adapter(self, scheme: str, *, where: str | None = None) -> Adapter:
        """The adapter of that scheme, or an error with the nearest, or with how to install it."""
        from saebench_canon.plugin.known_formats import lacking_scheme

        if scheme not in self.adapters and (hint := lacking_scheme(scheme)):
            raise CanonError(f"unknown scheme '{scheme}'", where=where, hint=hint)
        return self._find(self.adapters, "scheme", scheme, where)

    def trainer(self, name: str, *, where: str | None = None) -> Trainer:
        """The trainer of that architecture, or an error with the nearest."""
        return self._find(self.trainers, "architecture", name, where)

    def _find(self, nouns: Mapping[str, Noun], kind: str, name: str, where: str | None) -> Noun:
        if name in nouns:
            return nouns[name]
        raise CanonError(f"unknown {kind} '{name}'", where=where, hint=nearest(name, nouns))

    def _collect(
        self, hook: str, key: Callable[[Any], str], *, as_listed: bool = False
    ) -> dict[str, Any]:
        nouns: dict[str, Any] = {}
        owners: dict[str, str] = {}
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            for noun in implementation.function():
                name = key(noun)
                if name in owners:
                    raise CanonError(
                        f"{owners[name]} and {implementation.plugin_name} both have '{name}'"
                        f" ({hook})",
                        hint="Block one of them: CANON_PLUGINS=-NAME.",
                    )
                owners[name] = implementation.plugin_name
                nouns[name] = noun
        return nouns if as_listed else dict(sorted(nouns.items()))


def load_registry(files: Iterable[Path] = (), *, installed: bool = True) -> Registry:
    """The built-ins, the installed plugins that CANON_PLUGINS allows, and plugin files by path.

    With `installed` false, installed plugins are left out.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(_built_in(), name=BUILT_IN)
    broken: list[Broken] = []
    sources = {BUILT_IN: "built in"}
    for point in _allowed(entry_points(group=GROUP)) if installed else ():
        try:
            plugin = point.load()
            _check_nouns(plugin)
            _register(manager, plugin, point.name)
            sources[point.name] = f"{point.dist.name} {point.dist.version}" if point.dist else "?"
        except (
            Exception,
            SystemExit,
        ) as error:  # a plugin's code may fail in any way; go on without it
            broken.append(Broken(point.name, f"{type(error).__name__}: {error}"))
    for file in files:
        _register(manager, _module_of(file), file.stem)
        sources[file.stem] = str(file)
    return Registry(manager, tuple(broken), sources)


def _built_in() -> object:
    """The hooks of each room's `builtin`, as one plugin."""
    modules = [import_module(f"saebench_canon.{room}.builtin") for room in ROOMS]
    hooks: dict[str, list[Callable[..., Any]]] = {}
    for module in modules:
        for name, function in vars(module).items():
            if name.startswith("canon_"):
                hooks.setdefault(name, []).append(function)
    return SimpleNamespace(**{
        name: functions[0] if len(functions) == 1 else _of_all(functions)
        for name, functions in hooks.items()
    })  # fmt: skip


def _of_all(collecting: Sequence[Callable[[], Iterable[Any]]]) -> Callable[[], Iterable[Any]]:
    """One hook that gives the nouns of several rooms."""

    @hookspecs.hookimpl
    def collected() -> Iterable[Any]:
        return [noun for function in collecting for noun in function()]

    return collected


def _check_nouns(plugin: object) -> None:
    """Call a plugin's collecting hooks, so that errors in them appear when it is loaded."""
    for hook in NOUNS:
        if (collect := getattr(plugin, hook, None)) is not None:
            nouns = list(collect())
            if hook == "canon_data":
                _check_keys(nouns)


def _check_keys(kinds: Iterable[DataKind]) -> None:
    """Raise CanonError for a kind of data with an invalid field."""
    from saebench_canon.plugin.data_keys import keys_of

    for kind in kinds:
        keys_of(kind)


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Register one plugin, completely or not at all; an unknown hook or signature is an error."""
    misspelt = [
        name for name in dir(plugin) if name.startswith("canon_") and not hasattr(hookspecs, name)
    ]
    if misspelt:
        known = [name for name in dir(hookspecs) if name.startswith("canon_")]
        raise CanonError(
            f"plugin '{name}' has an unknown hook '{misspelt[0]}'", hint=nearest(misspelt[0], known)
        )
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        if manager.has_plugin(name):
            manager.unregister(name=name)
        raise CanonError(f"plugin '{name}': {error}") from None


def _allowed(points: Iterable[EntryPoint]) -> list[EntryPoint]:
    """Entry points that CANON_PLUGINS allows: unset all, empty none, `a,b` these, `-a` others."""
    ordered = sorted(points, key=lambda point: point.name)
    allowed = os.environ.get("CANON_PLUGINS")
    if allowed is None:
        return ordered
    names = [name.strip() for name in allowed.split(",") if name.strip()]
    blocked = {name[1:] for name in names if name.startswith("-")}
    only = {name for name in names if not name.startswith("-")}
    unknown = (blocked | only) - {point.name for point in ordered}
    if unknown:
        name = min(unknown)
        raise CanonError(
            f"CANON_PLUGINS names '{name}', which is not installed",
            hint=nearest(name, [point.name for point in ordered]),
        )
    if blocked and not only:
        return [point for point in ordered if point.name not in blocked]
    return [point for point in ordered if point.name in only - blocked]


def _module_of(file: Path) -> ModuleType:
    """A plugin file as a module with a prefixed name, so that pandas.py does not replace pandas.

    The name is the same in every process, so that what the file defines can be pickled.
    """
    refuse_special(file, where="--plugin")
    if not file.is_file():
        raise CanonError(f"the plugin file {file} does not exist", where="--plugin")
    name = PREFIX + re.sub(r"\W", "_", file.stem)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise CanonError(f"{file} is not a Python file", where="--plugin")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        _check_nouns(module)
    except (Exception, SystemExit) as error:  # the user's file may fail in any way
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise CanonError(
            f"{file} does not import: {type(error).__name__}: {error}", where="--plugin"
        ) from error
    return module
