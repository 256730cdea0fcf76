"""A pytest plugin that turns suite files on the command line into items, one per case."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.store import DEFAULT, Store
from saebench_canon.cli.arguments import as_argument, split
from saebench_canon.cli.broken_store import BROKEN_STORE, BrokenStore, stop
from saebench_canon.errors import (
    UNPRINTABLE,
    CanonError,
    StoreError,
    from_system,
    nearest,
    printable,
)
from saebench_canon.plugin.registry import Registry, load_registry
from saebench_canon.suite.cases import Case
from saebench_canon.suite.load import find_suite


@dataclass
class Session:
    """What one pytest session measures."""

    registry: Registry
    store: Store
    plans: dict[Path, Plan]
    names: dict[Path, str]  # the name of each suite on the command line
    bench: Any = None


SESSION = pytest.StashKey[Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `run` in addition to pytest's own."""
    group = parser.getgroup("saebench-canon")
    add = group.addoption
    add("--store", default=str(DEFAULT), metavar="DIR", help="where records and artefacts are kept")
    add("--fresh", action="store_true", help="measure all cases, also those already measured")
    add("--plugin", action="append", default=[], metavar="FILE", help="load a one-file plugin")
    add("--device", default="cpu", help="where SAEs and models compute: cpu, cuda, mps")
    add("--dtype", choices=["float32", "float64", "bfloat16", "float16"],
        help="number format of SAEs and models instead of the suite's")  # fmt: skip
    add("--batch-size", type=int, default=4096, metavar="N", help="tokens encoded at once")
    add("--threads", type=int, default=1, metavar="N", help="threads of each case (default 1)")
    add("--limit", type=int, metavar="TOKENS",
        help="use only so many tokens; never counts as the full case")  # fmt: skip
    add("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", dest="settings",
        help="replace a value of the suite, such as data.owt.tokens=1000")  # fmt: skip
    add("--metrics", metavar="A,B", help="what to measure when SAEs are named instead of a suite")
    add("--data", metavar="DATA",
        help="what they read: a .safetensors file of activations, or a language model")  # fmt: skip
    add("--hook", metavar="HOOK", help="where in the model, if the SAEs do not say")
    add("--text", metavar="TEXT", help="what the model reads (default packaged:python-docs)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the suites before collection: a mistake in one is wrong usage, exit code 4."""
    for line in ("sae(**axes): an SAE of the case's subject", "metric(name): the case's metric"):
        config.addinivalue_line("markers", line)
    if config.option.help or config.option.version:
        return
    try:
        config.stash[SESSION] = _session(config)
        config.stash[BROKEN_STORE] = BrokenStore()
        config.pluginmanager.register(config.stash[BROKEN_STORE])
        _check_markers(config, config.stash[SESSION])
    except CanonError as error:
        raise pytest.UsageError(str(error)) from None
    except OSError as error:
        raise pytest.UsageError(str(from_system(error))) from None


def _session(config: pytest.Config) -> Session:
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        raise CanonError("name a suite", hint="For example: saebench-canon run quickstart.")
    for option in ("batch_size", "threads", "limit"):
        value = getattr(config.option, option)
        if value is not None and value < 1:
            name = option.replace("_", "-")
            raise CanonError(f"--{name} must be a positive number, got {value}")
    registry = load_registry([Path(path) for path in config.option.plugin])
    _check_device(config.option.device)
    store = Store(Path(config.option.store))
    is_worker = hasattr(config, "workerinput")
    if not config.option.collectonly and not is_worker:
        store.prepare()  # a worker does so at its first case, whose failure then says what is wrong
    session = Session(registry, store, {}, {})
    named_saes = bool(config.option.metrics or config.option.data)
    suites, saes = _suites_and_saes(config.args, saes_expected=named_saes)
    for name in ("metrics", "data", "hook", "text"):
        if getattr(config.option, name) and not saes:
            hint = "A suite already says what is measured on which data."
            raise CanonError(f"--{name} is only for SAEs named instead of a suite", hint=hint)
    if saes:
        suites.append(_suite_of_saes(saes, config, registry, store))
    arguments = []
    worker_input = getattr(config, "workerinput", {})
    for given, rest in suites:
        path = Path(os.path.realpath(find_suite(given)))
        name = worker_input.get("names", {}).get(str(path), given)
        if path not in session.plans:
            session.plans[path] = make_plan(
                path,
                registry,
                store,
                settings=config.option.settings,
                limit=config.option.limit,
                dtype=config.option.dtype,
                file=name,
                to_measure=not config.option.collectonly,
            )
            session.names[path] = name
        planned_ids = worker_input.get("case_ids", {}).get(str(path))
        if planned_ids is not None:  # what has changed since must not pass under another id
            session.plans[path] = replace(session.plans[path], ids=planned_ids)
        _check_node(session.plans[path], rest)
        _check_printable(str(path))
        arguments.append("::".join([as_argument(path, given, config), *rest]))
    config.args[:] = arguments
    return session


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give each worker the ids that were planned, and the suites' names."""
    session = node.config.stash.get(SESSION, None)
    if session is not None:
        node.workerinput["case_ids"] = {
            str(path): list(plan.ids) for path, plan in session.plans.items()
        }
        node.workerinput["names"] = {str(path): name for path, name in session.names.items()}


def _check_device(device: str) -> None:
    """Refuse a device that does not exist; checking any but the CPU needs torch."""
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise CanonError(f"'{device}' is not a device", where="--device",
                         hint=nearest(device, ("cpu", "cuda", "cuda:0", "mps")))  # fmt: skip
    if device == "cpu":
        return
    import torch

    index = int(device.partition(":")[2] or 0)
    available = torch.backends.mps.is_available() if device == "mps" else (
        index < torch.cuda.device_count()
    )  # fmt: skip
    if not available:
        raise CanonError(f"this machine has no device '{device}'", where="--device",
                         hint="`saebench-canon doctor` lists the devices.")  # fmt: skip


def _suites_and_saes(
    arguments: Sequence[str], *, saes_expected: bool
) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """The suites among the arguments (with what follows `::`), and the SAEs.

    Raises CanonError for a path that does not exist and cannot be the name of a suite.
    """
    from saebench_canon.plugin.ref import is_bare_path
    from saebench_canon.suite.load import packaged_suites

    suites: list[tuple[str, list[str]]] = []
    saes: list[str] = []
    for argument in arguments:
        head, rest = split(argument)
        packaged = packaged_suites()
        is_sae = not is_bare_path(head) or (
            Path(head).exists() and not _is_toml(head) and head not in packaged
        )
        is_path = "/" in head or (saes_expected and head not in packaged)
        if not is_sae and is_path and not _is_toml(head) and not Path(head).exists():
            folder = Path(head).parent
            near = [str(path) for path in folder.glob("*")] if folder.is_dir() else []
            hint = nearest(head, near) if near else "An SAE on a hub is named SCHEME://OWNER/NAME."
            if rest:
                hint = f"`::` separates a suite from the names of its cases. {hint}"
            raise CanonError(f"there is no suite, file or folder '{head}'", hint=hint)
        if is_sae:
            saes.append("::".join([head, *rest]))
        else:
            suites.append((head, rest))
    return suites, saes


def _check_printable(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise CanonError(
            f"the path {os.fsencode(path)!r} is not UTF-8", hint="Rename the file or folder."
        ) from None
    if UNPRINTABLE.search(path):
        raise CanonError(f"the path {path!r} has control characters",
                         hint="Rename the file or folder.")  # fmt: skip


def _is_toml(text: str) -> bool:
    return Path(text).suffix.lower() == ".toml"


def _suite_of_saes(
    saes: Sequence[str], config: pytest.Config, registry: Registry, store: Store
) -> tuple[str, list[str]]:
    """A suite for SAEs named on the command line, kept in the store."""
    from saebench_canon.suite.from_command_line import Options, suite_of_saes

    option = config.option
    options = Options(option.metrics, option.data, option.hook, option.text)
    for sae in saes:
        _check_printable(sae)
    text, names, left_out = suite_of_saes(saes, options, registry)
    if not hasattr(config, "workerinput"):
        for sentence in (*names, *left_out):
            print(f"{sentence}.")
    name = f"run-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}.toml"
    return str(store.keep_suite(name, text)), []


def _check_node(plan: Plan, rest: Sequence[str]) -> None:
    """Refuse `::subject` or `::subject::metric` that the suite does not have."""
    if not rest:
        return
    subjects = {case.name for case in plan.cases}
    if rest[0] not in subjects:
        raise CanonError(f"no subject '{rest[0]}'", hint=nearest(rest[0], subjects))
    titles = {case.title for case in plan.cases if case.name == rest[0]}
    if len(rest) > 1 and rest[1] not in titles:
        raise CanonError(f"no case '{rest[1]}' of '{rest[0]}'", hint=nearest(rest[1], titles))


def _check_markers(config: pytest.Config, session: Session) -> None:
    """Refuse axes, metrics and markers in `-m` that no case has."""
    expression = config.option.markexpr
    if not expression:
        return
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError:
        return  # pytest reports it
    cases = [case for plan in session.plans.values() for case in plan.cases]
    axes = {axis for case in cases for sae in case.subject for axis in sae.axes} | {"name"}
    metrics = {name for case in cases for name in (case.metric.name, case.label)}
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in ("sae", "metric"):
            hint = "Use sae(AXIS=VALUE) or metric(name='NAME')."
            raise CanonError(f"unknown marker '{node.id}'", where="-m", hint=hint)
        if isinstance(node, ast.Name) and id(node) in calls:
            _check_call(node.id, calls[id(node)], axes, metrics)


def _check_call(marker: str, call: ast.Call, axes: set[str], metrics: set[str]) -> None:
    for keyword in call.keywords:
        known = axes if marker == "sae" else {"name"}
        if keyword.arg not in known:
            raise CanonError(f"{marker} has no '{keyword.arg}'", where="-m",
                             hint=nearest(str(keyword.arg), known))  # fmt: skip
        if marker == "metric" and isinstance(keyword.value, ast.Constant):
            name = str(keyword.value.value)
            if name not in metrics:
                raise CanonError(f"no metric '{name}'", where="-m", hint=nearest(name, metrics))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a suite only if it is named on the command line."""
    session = parent.config.stash.get(SESSION, None)
    path = Path(os.path.realpath(file_path))
    if session is None or path not in session.plans:
        return None
    nodeid = session.names[path].replace("::", ":")  # which separates names in it
    collector: pytest.Collector = SuiteFile.from_parent(parent, path=file_path, nodeid=nodeid)
    return collector


class SuiteFile(pytest.File):
    """A suite; its children are subjects."""

    def collect(self) -> Iterator[pytest.Collector]:
        """The subjects in the order of the plan."""
        plan = self.config.stash[SESSION].plans[Path(os.path.realpath(self.path))]
        cases = list(zip(plan.cases, plan.ids, strict=True))
        by_subject: dict[str, list[tuple[Case, str]]] = {}
        for case, case_id in cases:
            by_subject.setdefault(case.name, []).append((case, case_id))
        for name, group in by_subject.items():
            yield SubjectNode.from_parent(self, name=name, cases=group)


class SubjectNode(pytest.Collector):
    """One SAE, pair or group; its children are cases."""

    def __init__(self, *, cases: Sequence[tuple[Case, str]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cases = cases

    def collect(self) -> Iterator[pytest.Item]:
        """The cases of this subject."""
        for case, case_id in self.cases:
            yield CaseItem.from_parent(self, name=case.title, case=case, case_id=case_id)


class CaseItem(pytest.Item):
    """One case: passes when its record is in the store."""

    def __init__(self, *, case: Case, case_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case = case
        self.case_id = case_id
        for sae in case.subject:
            self.add_marker(pytest.mark.sae(**{"name": sae.name, **sae.axes}))
        self.add_marker(pytest.mark.metric(name=case.metric.name))
        if case.label != case.metric.name:
            self.add_marker(pytest.mark.metric(name=case.label))

    def runtest(self) -> None:
        """Measure the case unless it is already measured; a broken store ends the run."""
        try:
            self._measure()
        except StoreError as error:
            stop(self, error)
            raise

    def _measure(self) -> None:
        session = self.config.stash[SESSION]
        record = session.store.measured(self.case_id)
        self.user_properties.append(("case", str(self.case)))
        self.user_properties.append(("label", self.case.label))
        self.user_properties.append(("id", self.case_id))
        if record is not None and not self.config.option.fresh:
            self.user_properties.append(("kept", True))
            return
        record = bench(self.config).measure(self.case, rerun=self.config.option.fresh)
        if record.id != self.case_id:
            raise CanonError(
                "an SAE or the data has changed since the suite was read", where=self.case.name,
                hint="Run again.",
            )  # fmt: skip

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A sentence for a user's mistake; for other errors also where in the metric they arose.

        The whole traceback is in the store; `show --errors` prints it.
        """
        error = excinfo.value
        if isinstance(error, CanonError):
            return str(error)
        if isinstance(error, OSError):
            return str(from_system(error))
        from saebench_canon.bench import measure

        frames = traceback.extract_tb(error.__traceback__)
        ours = [index for index, frame in enumerate(frames) if frame.filename == measure.__file__]
        within = frames[max(ours, default=-1) + 1 :]
        lines = [*traceback.format_list(within), *traceback.format_exception_only(error)]
        return printable("".join(lines))

    def reportinfo(self) -> tuple[Path, None, str]:
        """The case as pytest's headings show it."""
        return self.path, None, str(self.case)


def bench(config: pytest.Config) -> Any:
    """The session's bench, made for the first case to measure, since it imports torch."""
    from saebench_canon.bench.artifact_cache import Execution
    from saebench_canon.bench.measure import Bench

    session = config.stash[SESSION]
    if session.bench is None:
        session.bench = Bench(
            session.registry,
            session.store,
            Execution(
                device=config.option.device,
                batch_size=config.option.batch_size,
                threads=config.option.threads,
            ),
        )
    return session.bench
