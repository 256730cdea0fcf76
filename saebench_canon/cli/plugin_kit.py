"""The commands of the plugin kit: `check`, `new` and `schema`."""

from __future__ import annotations

import json
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tabulate import tabulate

from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.ref import Ref, is_bare_path
from saebench_canon.plugin.registry import Registry, load_registry

if TYPE_CHECKING:
    from saebench_canon.plugin.world import World
    from saebench_canon.plugin_kit.findings import Findings

FAILED = 1


def check(options: Namespace) -> int:
    """Print the checks of an adapter, a metric or a world; returns 1 if one failed."""
    registry = load_registry([Path(path) for path in options.plugin])
    findings = _examine(options, registry)
    rows = [
        (finding.check, finding.result, message)
        for finding, message in zip(findings, _messages(findings), strict=True)
    ]
    print(tabulate(rows, headers=["check", "result", "message"], maxcolwidths=[None, None, 76]))
    count = f"{len(findings.failed)} failed" if findings.failed else "none failed"
    print(f"\n{findings.subject}: {len(rows)} checks, {count}.")
    return FAILED if findings.failed else 0


def _messages(findings: Findings) -> Iterator[str]:
    """The message of each finding; repeated failures as "as above", paths relative."""
    printed: set[str] = set()
    for finding in findings:
        repeated = not finding.ok and finding.message in printed
        yield "as above" if repeated else finding.message.replace(f"{Path.cwd()}/", "")
        printed.add(finding.message)


def _examine(options: Namespace, registry: Registry) -> Findings:
    from saebench_canon.testing import examine_metric, examine_world

    subject = options.what
    worlds = registry.named_data
    if subject in worlds and subject not in registry.metrics:
        settings = dict(_setting(text) for text in options.settings)
        return examine_world(cast("type[World]", worlds[subject]), settings=settings)
    if "/" not in subject and subject in registry.metrics:
        metric = registry.metrics[subject]
        settings = dict(_setting(text) for text in options.settings)
        for key in settings:
            if key not in metric.settings:
                raise CanonError(f"metric '{subject}' has no setting '{key}'", where="--set",
                                 hint=nearest(key, metric.settings))  # fmt: skip
        return examine_metric(
            metric, settings=settings, except_scores=options.except_scores, registry=registry
        )
    for option, values in (("--set", options.settings), ("--except", options.except_scores)):
        if values:
            raise CanonError(f"{option} is only for metrics, and '{subject}' is not one")
    return _examine_ref(subject, registry)


def _examine_ref(subject: str, registry: Registry) -> Findings:
    from saebench_canon.plugin_kit.adapter_checks import CHECKS, AdapterUnderTest
    from saebench_canon.plugin_kit.findings import report

    bare = is_bare_path(subject)
    if bare and not Path(subject).expanduser().exists():
        raise CanonError(
            f"'{subject}' is no metric, no world, and no file or folder",
            hint=nearest(subject, [*registry.metrics, *registry.named_data]),
        )
    ref = Ref.parse(f"file:{subject}" if bare else subject)
    adapter = registry.adapter(ref.scheme)
    if ref.local:
        ref = ref.within(Path.cwd())
        if not ref.path.exists():
            raise CanonError(f"there is no file or folder {ref.path}")
    if ref.scheme == "file":
        claimed = registry.claim(ref.path)
        if claimed is None:
            adapter.describe(ref)  # raises with the reason
            raise CanonError(f"no plugin knows the format of '{subject}'")
        ref = Ref.parse(claimed)
        adapter = registry.adapter(ref.scheme)
    claim = registry.claim if ref.local and registry.claim(ref.path) is not None else None
    return report(subject, CHECKS, AdapterUnderTest(adapter, ref, claim))


def _setting(text: str) -> tuple[str, Any]:
    """The key and value of `KEY=VALUE`; a value that is not TOML is a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise CanonError(f"'{text}' is not KEY=VALUE", where="--set")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def new(options: Namespace) -> None:
    """Write a template of a plugin or a suite, and print what to do next."""
    from saebench_canon.plugin_kit.new import new_plugin, new_suite

    folder, name = Path(options.to), options.name
    if options.kind == "suite":
        written = new_suite(name, folder)
        commands = (f"plan {written[0]}", f"run {written[0]}")
        lines = [f"saebench-canon {command}" for command in commands]
    else:
        registry = load_registry([Path(path) for path in options.plugin])
        written = new_plugin(options.kind, name, folder, registry)
        home, module = folder / name, written[2]
        subject = "PATH" if options.kind == "adapter" else name
        lines = [
            f"saebench-canon check {subject} --plugin {module}",
            f"python -m pytest {home}",
            f"pip install {home if home.is_absolute() else f'./{home}'}",
        ]
    for path in written:
        print(f"wrote {path}")
    print("next:")
    for line in lines:
        print(f"  {line}")


def schema(options: Namespace) -> None:
    """Print the JSON schema of suite files, with the installed metrics and trainers."""
    from saebench_canon.plugin_kit.schema import suite_schema

    registry = load_registry([Path(path) for path in options.plugin])
    print(json.dumps(suite_schema(registry), indent=1))
