"""The commands `plan`, `show`, `ls`, `plugins` and `doctor`, without importing torch."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError, nearest, writing
from saebench_canon.plugin.metric import SUBJECT
from saebench_canon.plugin.registry import Registry, load_registry

if TYPE_CHECKING:
    from saebench_canon.bench.plan import Plan
    from saebench_canon.plugin.question import Margins
    from saebench_canon.plugin.row import ListedCase

FEW = 40  # `plan` lists at most so many cases one by one


def _registry(options: Namespace) -> Registry:
    return load_registry([Path(path) for path in options.plugin])


def plan(options: Namespace) -> None:
    """Print the cases of a suite and their states in the store."""
    from saebench_canon.bench.plan import make_plan
    from saebench_canon.suite.load import find_suite

    store = Store(Path(options.store))
    registry = _registry(options)
    run_plan = make_plan(
        find_suite(options.suite),
        registry,
        store,
        settings=options.settings,
        limit=options.limit,
        dtype=options.dtype,
    )
    listed = [(case, run_plan.state(case.id or "")) for case in run_plan.listed()]
    _remark(store)
    if options.json:
        print(json.dumps([{**case.to_json(), "state": state} for case, state in listed], indent=1))
        return
    suite = run_plan.suite
    print(f"{suite.name}, version {suite.version}: {len(suite.saes)} SAEs")
    if len(listed) <= FEW:
        print(tabulate(
            [("+".join(case.subject), case.title, state) for case, state in listed],
            headers=["subject", "metric", "state"],
        ), end="\n\n")  # fmt: skip
    states = Counter((case.title, case.over, state) for case, state in listed)
    rows = [
        (title, over, *(states[title, over, state] for state in ("measured", "failed", "missing")))
        for title, over in dict.fromkeys((case.title, case.over) for case, _ in listed)
    ]
    print(tabulate(rows, headers=["metric", "over", "measured", "failed", "to measure"]))
    missing = sum(state != "measured" for _, state in listed)
    if suite.questions:
        questions = _questions_with_margins(suite.questions, registry)
        print(f"\nQuestions: {'; '.join(questions)}.")
    print(f"\n{len(listed)} cases, {missing} to measure.")
    if missing:
        _estimate(run_plan, registry)


def _remark(store: Store) -> None:
    """Tell what in the store cannot be used, beside what is printed."""
    for sentence in store.remarks():
        print(f"note: {sentence}", file=sys.stderr)


def _questions_with_margins(
    margins_by_question: Mapping[str, Margins], registry: Registry
) -> Iterator[str]:
    """The questions of a suite, each with the margins that differ from the defaults."""
    for name, margins in margins_by_question.items():
        changed = [
            f"{margin.name} = {margins[margin.name]:g} instead of {margin.default:g}"
            for margin in registry.questions[name].margins
            if margins[margin.name] != margin.default
        ]
        yield f"{name} with {' and '.join(changed)}" if changed else name


def _estimate(run_plan: Plan, registry: Registry) -> None:
    from saebench_canon.bench.estimates import cores, estimate, lines, measured_speed
    from saebench_canon.saes.memory_needed import memory

    costs = estimate(run_plan, registry, speed=measured_speed())
    print("Rough estimate for measuring them:")
    for line in lines(costs, cores=cores(), memory=memory().total):
        print(f"  {line}")


def show(options: Namespace) -> None:
    """Print the tables of the last run, or the card of one of its latents."""
    if options.latent is not None or options.meta_latent is not None:
        from saebench_canon.cli.latent import show_latent

        return show_latent(options)
    from saebench_canon.bench.results import (
        cases_of_run,
        last_run,
        questions_of,
        rows_of,
        tables_of,
    )
    from saebench_canon.questions.ask import answers_of
    from saebench_canon.reports import terminal as render
    from saebench_canon.tables.summarise import summarise

    store = Store(Path(options.store))
    run = last_run(store, options.suite)
    if options.errors:
        _errors(cases_of_run(run), store)
        return
    registry = _registry(options)
    rows = rows_of(cases_of_run(run), store, registry.metrics)
    _remark(store)
    metrics = list(registry.metrics.values())
    if options.json and not (options.answers or options.canonical):
        print(json.dumps([row.to_dict() for row in rows], indent=1))
        return
    summary = summarise(rows, metrics, tables=tables_of(store), data=run.get("data"))
    if options.canonical:
        from saebench_canon.cli.canonical_list import show_canonical

        return show_canonical(summary, options)
    answers = answers_of(summary, registry.questions, questions_of(run, registry.questions))
    if options.json:
        print(json.dumps([answer.to_dict() for answer in answers], indent=1))
    elif options.to:
        path = Path(options.to)
        if not path.parent.is_dir():
            raise CanonError(f"the folder {path.parent} does not exist", where="--to")
        if path.suffix not in registry.reports:
            raise CanonError(f"a run cannot be written as '{path.suffix}'", where=str(path),
                             hint=nearest(path.suffix, registry.reports))  # fmt: skip
        report = registry.reports[path.suffix]
        arguments: dict[str, Any] = {"tables": tables_of(store)} if report.reads_tables else {}
        arguments |= {"answers": answers} if report.reads_answers else {}
        with writing(path):
            report.write(rows, metrics, path, **arguments)
        print(f"wrote {path}")
    elif options.answers:
        print(render.text_answers(summary, answers), end="")
    else:
        print(render.text(summary, answers, all_scores=options.all), end="")


def _errors(cases: Iterable[ListedCase], store: Store) -> None:
    errors = [error for case in cases if (error := store.error(case.id or "")) is not None]
    for error in errors:
        print(f"{error['case']}: {error['error']}")
        if error.get("traceback"):
            print(error["traceback"])
    if not errors:
        print("No case failed.")


def ls(options: Namespace) -> None:
    """Print the names that suites can use."""
    from saebench_canon.suite.load import packaged_suites

    registry = _registry(options)
    print("suites")
    for name, path in packaged_suites().items():
        print(f"  {name:<16} {_first_comment(path)}")
    print("metrics")
    for metric in registry.metrics.values():
        print(f"  {metric.name:<16} of {SUBJECT[metric.of]}: {_first_line(metric.help)}")
    print("questions")
    for question in registry.questions.values():
        print(f"  {question.name:<16} reads {', '.join(question.metrics)}: {question.help}")
    print("kinds of data")
    for kind in registry.data.values():
        if kind.named is None:
            print(f"  {kind.kind():<16} {_first_line(kind.__doc__)}")
    print("worlds: the values of `synthetic` in a data table")
    for name, kind in registry.named_data.items():
        print(f"  {name:<18} {_first_line(kind.__doc__)}")
    print("architectures to train")
    for trainer in registry.trainers.values():
        print(f"  {trainer.name:<16} {_first_line(trainer.help)}")
    print("schemes")
    for adapter in registry.adapters.values():
        sentence = getattr(adapter, "help", None) or type(adapter).__doc__
        print(f"  {adapter.scheme + ':':<16} {_first_line(sentence)}")


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def plugins(options: Namespace) -> None:
    """Print the plugins with what they provide, and those that could not be loaded."""
    registry = _registry(options)
    provided: dict[str, list[str]] = {name: [] for name in registry.sources}
    for hook, noun in (("adapters", "scheme"), ("data", "data"), ("metrics", "metric"),
                       ("inputs", "input"), ("trainers", "trainer"), ("questions", "question"),
                       ("reports", "report")):  # fmt: skip
        getattr(registry, hook)  # raises if two plugins use one name
        for implementation in getattr(registry.manager.hook, f"canon_{hook}").get_hookimpls():
            for implemented in implementation.function():
                name = getattr(implemented, "name", None) or getattr(implemented, "scheme", None)
                name = name or (implemented.title() if hook == "data" else implemented.suffix)
                provided[implementation.plugin_name].append(f"{noun} {name}")
    for name, source in registry.sources.items():
        print(f"{name} ({source})")
        for line in provided[name]:
            print(f"  {line}")
    for broken in registry.broken:
        print(f"{broken.name} (broken: {broken.reason})")


def doctor(options: Namespace) -> None:
    """Print versions, hardware, the state of the store, and whether the hub is reachable."""
    from saebench_canon.bench.provenance import hardware, versions
    from saebench_canon.saes import hub_offline as hub

    store = Store(Path(options.store))
    registry = _registry(options)
    writable = os.access(next(folder for folder in (store.root, *store.root.absolute().parents)
                              if folder.exists()), os.W_OK)  # fmt: skip
    measured = len(list((store.root / "records").glob("*.json")))
    size = sum(file.stat().st_size for file in store.root.rglob("*") if file.is_file())
    machine = {**versions(), **hardware()}
    memory = machine.pop("memory_bytes")
    rows = [*machine.items()]
    rows += [("memory", "unknown" if memory is None else f"{memory / 2**30:.1f} GiB")]
    rows += [("devices", ", ".join(_devices()))]
    rows += [("store", f"{store.root}: {measured} records, {size / 2**20:.0f} MiB, "
              f"{'writable' if writable else 'not writable'}")]  # fmt: skip
    rows += [("hub", "not reachable" if hub.out_of_reach() else "its host name resolves")]
    rows += [("plugins", f"{len(registry.sources)} loaded, {len(registry.broken)} broken")]
    print(tabulate(rows, tablefmt="plain"))


def _devices() -> list[str]:
    """The devices torch can use; nothing else in this file needs torch."""
    try:
        import torch
    except ImportError as error:
        return [f"none: torch does not import ({error})"]
    devices = [f"cpu (threads: {torch.get_num_threads()})"]
    devices += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return devices + (["mps"] if torch.backends.mps.is_available() else [])
