"""Which plugins there are and what they bring: a registry of nouns, a pluggy manager of hooks."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
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
PREFIX = "_canon_plugin_"  # of the modules that plugin files become
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
    """Everything the plugins bring, by name; two owners of one name are an error."""

    manager: pluggy.PluginManager
    broken: tuple[Broken, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def adapters(self) -> dict[str, Adapter]:
        """Adapters by scheme; `file` hands each path to the adapter of whoever claims it."""
        from saebench_canon.plugin.local import LocalAdapter

        adapters = self._collect("canon_adapters", lambda adapter: str(adapter.scheme))
        local = LocalAdapter(self.claim, adapters.__getitem__, self.recognise)
        return {local.scheme: local, **adapters}

    def reader(self, ref: Ref) -> tuple[Adapter, Ref]:
        """The adapter that reads a ref, and the ref as it writes it: a path's by its format."""
        from saebench_canon.plugin.local import LocalAdapter

        adapter = self.adapter(ref.scheme)
        return adapter.owner(ref) if isinstance(adapter, LocalAdapter) else (adapter, ref)

    @cached_property
    def data(self) -> dict[str, DataKind]:
        """Kinds of data by the key with which a data table picks them."""
        return self._collect("canon_data", lambda kind: str(kind.kind()))

    @cached_property
    def inputs(self) -> dict[str, Input]:
        """Inputs by name."""
        return self._collect("canon_inputs", lambda each: str(each.name))

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Metrics by name, in the order of tables: as they are brought, the built-in ones first."""
        return self._collect("canon_metrics", lambda metric: str(metric.name), as_brought=True)

    @cached_property
    def trainers(self) -> dict[str, Trainer]:
        """Trainers by the name of their architecture."""
        return self._collect("canon_trainers", lambda each: str(each.name))

    @cached_property
    def questions(self) -> dict[str, Question]:
        """Questions by name, in the order that answers are read in: the built-in ones first."""
        return self._collect(
            "canon_questions", lambda question: str(question.name), as_brought=True
        )

    @cached_property
    def reports(self) -> dict[str, Report]:
        """Reports by the suffix of the files they write."""
        return self._collect("canon_reports", lambda each: str(each.suffix))

    def claim(self, path: Path) -> str | None:
        """The ref of a bare path, by whichever plugin knows its format; two are an error.

        A plugin that fails on the path claims nothing; where nobody else does, that is said.
        """
        claims: dict[str, str] = {}
        failed: list[str] = []
        for each in self.manager.hook.canon_claim.get_hookimpls():
            try:
                claim = None if each.wrapper else each.function(path=path)
            except CanonError:
                raise
            except Exception as error:  # a plugin's own code on somebody else's files
                failed.append(f"'{each.plugin_name}' ({type(error).__name__}: {error})")
                continue
            if isinstance(claim, str):
                claims.setdefault(claim, each.plugin_name)
            elif claim is not None:
                failed.append(f"'{each.plugin_name}' (claims {claim!r}, which is no ref)")
        if len(claims) > 1:
            owners = " and ".join(f"'{owner}' ({claim})" for claim, owner in claims.items())
            raise CanonError(
                f"more than one plugin knows the format of '{path}': {owners}",
                hint=f"Say which one is meant: {' or '.join(claims)}.",
            )
        if failed and not claims:
            raise CanonError(
                f"nobody knows the format of '{path}', and these plugins fail on it: "
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
        """The adapter of that scheme, or an error with the nearest or with what installs it."""
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
        self, hook: str, key: Callable[[Any], str], *, as_brought: bool = False
    ) -> dict[str, Any]:
        nouns: dict[str, Any] = {}
        owners: dict[str, str] = {}
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            for noun in implementation.function():
                name = key(noun)
                if name in owners:
                    raise CanonError(
                        f"{owners[name]} and {implementation.plugin_name} both bring '{name}'"
                        f" ({hook})",
                        hint="Block one of them: CANON_PLUGINS=-NAME.",
                    )
                owners[name] = implementation.plugin_name
                nouns[name] = noun
        return nouns if as_brought else dict(sorted(nouns.items()))


def load_registry(files: Iterable[Path] = (), *, installed: bool = True) -> Registry:
    """The built-ins, the installed plugins that CANON_PLUGINS lets in, and plugin files by path.

    Without `installed` the installed plugins stay out.
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
        except (Exception, SystemExit) as error:  # in any way; the program goes on without it
            broken.append(Broken(point.name, f"{type(error).__name__}: {error}"))
    for file in files:
        _register(manager, _module_of(file), file.stem)
        sources[file.stem] = str(file)
    return Registry(manager, tuple(broken), sources)


def _built_in() -> object:
    """What this package brings: the hooks of each room's `builtin`, as one plugin."""
    modules = [import_module(f"saebench_canon.{room}.builtin") for room in ROOMS]
    hooks = (
        (name, function)
        for module in modules
        for name, function in vars(module).items()
        if name.startswith("canon_")
    )
    return SimpleNamespace(**dict(hooks))


def _check_nouns(plugin: object) -> None:
    """Ask a plugin for all it brings, so that one that cannot tell is broken from the start."""
    for hook in NOUNS:
        if (bring := getattr(plugin, hook, None)) is not None:
            nouns = list(bring())
            if hook == "canon_data":
                _check_keys(nouns)


def _check_keys(kinds: Iterable[DataKind]) -> None:
    """Refuse a kind of data with a field that no table can say."""
    from saebench_canon.plugin.data_keys import keys_of

    for kind in kinds:
        keys_of(kind)


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Register one plugin whole, or not at all: misspelt hooks and wrong signatures are errors."""
    misspelt = [
        each for each in dir(plugin) if each.startswith("canon_") and not hasattr(hookspecs, each)
    ]
    if misspelt:
        known = [each for each in dir(hookspecs) if each.startswith("canon_")]
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
    """Entry points that CANON_PLUGINS lets in: unset all, empty none, `a,b` those, `-a` all but."""
    ordered = sorted(points, key=lambda point: point.name)
    wish = os.environ.get("CANON_PLUGINS")
    if wish is None:
        return ordered
    names = [name.strip() for name in wish.split(",") if name.strip()]
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
    """A plugin file as a module, under a name of its own: pandas.py is nobody's pandas.

    The name is the same in every process, so that what the file defines can be pickled.
    """
    if not file.is_file():
        raise CanonError(f"no plugin file {file}", where="--plugin")
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
    except (Exception, SystemExit) as error:  # the user's own file: say where it broke
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise CanonError(
            f"{file} does not import: {type(error).__name__}: {error}", where="--plugin"
        ) from error
    return module
