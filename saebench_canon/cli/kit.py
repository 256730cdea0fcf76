"""What the commands of the plugin kit do: `check`, `new`, `schema`; they print."""

from __future__ import annotations

import json
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.ref import Ref, is_bare_path
from saebench_canon.plugin.registry import Registry, load_registry

if TYPE_CHECKING:
    from saebench_canon.kit.findings import Findings

FAILED = 1


def check(options: Namespace) -> int:
    """Print what the conformance kit finds on an adapter or a metric; 1 if something failed."""
    registry = load_registry([Path(each) for each in options.plugin])
    found = _examined(options, registry)
    rows = [(each.check, each.result, told) for each, told in zip(found, _once(found), strict=True)]
    print(tabulate(rows, headers=["check", "result", "message"], maxcolwidths=[None, None, 76]))
    count = f"{len(found.failed)} failed" if found.failed else "none failed"
    print(f"\n{found.subject}: {len(rows)} checks, {count}.")
    return FAILED if found.failed else 0


def _once(found: Findings) -> Iterator[str]:
    """What each finding tells, a long sentence only the first time, paths from here."""
    seen: set[str] = set()
    for each in found:
        again = not each.ok and each.message in seen
        yield "as above" if again else each.message.replace(f"{Path.cwd()}/", "")
        seen.add(each.message)


def _examined(options: Namespace, registry: Registry) -> Findings:
    from saebench_canon.testing import examine_metric

    what = options.what
    if "/" not in what and what in registry.metrics:
        metric = registry.metrics[what]
        settings = dict(_setting(text) for text in options.settings)
        for key in settings:
            if key not in metric.settings:
                raise CanonError(f"metric '{what}' has no setting '{key}'", where="--set",
                                 hint=nearest(key, metric.settings))  # fmt: skip
        return examine_metric(
            metric, settings=settings, except_scores=options.except_scores, registry=registry
        )
    for option, given in (("--set", options.settings), ("--except", options.except_scores)):
        if given:
            raise CanonError(f"{option} goes with a metric, and '{what}' is none")
    return _of_ref(what, registry)


def _of_ref(what: str, registry: Registry) -> Findings:
    from saebench_canon.kit.adapter_checks import CHECKS, AdapterUnderTest
    from saebench_canon.kit.findings import report

    bare = is_bare_path(what)
    if bare and not Path(what).expanduser().exists():
        raise CanonError(
            f"'{what}' is neither a metric nor a file or folder",
            hint=nearest(what, registry.metrics),
        )
    ref = Ref.parse(f"file:{what}" if bare else what)
    adapter = registry.adapter(ref.scheme)
    if ref.local:
        ref = ref.within(Path.cwd())
        if not ref.path.exists():
            raise CanonError(f"there is no file or folder {ref.path}")
    if ref.scheme == "file":
        claimed = registry.claim(ref.path)
        if claimed is None:
            adapter.describe(ref)  # says why nobody knows it
            raise CanonError(f"no plugin knows the format of '{what}'")
        ref = Ref.parse(claimed)
        adapter = registry.adapter(ref.scheme)
    claim = registry.claim if ref.local and registry.claim(ref.path) is not None else None
    return report(what, CHECKS, AdapterUnderTest(adapter, ref, claim))


def _setting(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`, the value as TOML has it or else as a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise CanonError(f"'{text}' is not KEY=VALUE", where="--set")
    try:
        return key.strip(), tomllib.loads(f"it = {value}")["it"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def new(options: Namespace) -> None:
    """Write the start of an adapter, a metric or a suite, and print what to do next."""
    from saebench_canon.kit.new import new_plugin, new_suite

    folder, name = Path(options.to), options.name
    if options.kind == "suite":
        written = new_suite(name, folder)
        then = [f"plan {written[0]}", f"run {written[0]}"]
        lines = [f"saebench-canon {each}" for each in then]
    else:
        registry = load_registry([Path(each) for each in options.plugin])
        written = new_plugin(options.kind, name, folder, registry)
        home, module = folder / name, written[2]
        asked = "PATH" if options.kind == "adapter" else name
        lines = [
            f"saebench-canon check {asked} --plugin {module}",
            f"python -m pytest {home}",
            f"pip install {home if home.is_absolute() else f'./{home}'}",
        ]
    for path in written:
        print(f"wrote {path}")
    print("next:")
    for line in lines:
        print(f"  {line}")


def schema(options: Namespace) -> None:
    """Print the JSON schema of suite files, with the metrics and trainers that are plugged in."""
    from saebench_canon.kit.schema import suite_schema

    registry = load_registry([Path(each) for each in options.plugin])
    print(json.dumps(suite_schema(registry), indent=1))
