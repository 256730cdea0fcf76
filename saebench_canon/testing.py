"""What a plugin's tests may import: conformance checks, and what surrounds a plugin in a suite.

    def test_it_conforms(tmp_path):
        save_one(tmp_path)
        check_adapter(my_format, tmp_path)

`check_…` raises AssertionError with a sentence for each check that failed; `examine_…` gives the
same findings without. `saebench-canon check REF|METRIC` prints them as a table.
`load_registry([FILE])` loads a plugin file with the built-ins; `normalise` and `calibrate` are what
a suite does around an SAE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from saebench_canon.errors import CanonError
from saebench_canon.plugin.ref import Ref, is_bare_path
from saebench_canon.plugin.registry import Registry, load_registry
from saebench_canon.plugin_kit.findings import Finding, Findings, report

if TYPE_CHECKING:
    from types import ModuleType

    from saebench_canon.inputs.normalise import normalise
    from saebench_canon.plugin.adapter import Adapter
    from saebench_canon.plugin.metric import Metric
    from saebench_canon.plugin.world import World
    from saebench_canon.saes.calibration import calibrate

__all__ = [
    "Finding", "Findings", "Registry", "calibrate", "check_adapter", "check_metric",
    "check_world", "examine_adapter", "examine_metric", "examine_world", "load_registry",
    "normalise", "registry_of",
]  # fmt: skip

P = ParamSpec("P")
_HOME = {"calibrate": "saes.calibration", "normalise": "inputs.normalise"}  # they import torch


def examine_adapter(
    adapter: Adapter,
    ref: str | Path | Ref,
    *,
    claim: Callable[[Path], str | None] | None = None,
) -> Findings:
    """The findings on an adapter, checked on one SAE that it loads.

    `ref` may be a bare path; `claim` is the plugin's `canon_claim`; default: the adapter's
    `claim`.
    """
    from saebench_canon.plugin_kit.adapter_checks import CHECKS, AdapterUnderTest

    text = str(ref)
    if is_bare_path(text):
        text = f"{adapter.scheme}:{text}"
    parsed = ref if isinstance(ref, Ref) else Ref.parse(text)
    if parsed.local:
        parsed = parsed.within(Path.cwd())
        if not parsed.path.exists():
            raise CanonError(f"there is no file or folder {parsed.path}")
    claim = claim or getattr(adapter, "claim", None)
    return report(str(ref), CHECKS, AdapterUnderTest(adapter, parsed, claim))


def examine_metric(
    metric: Metric,
    *,
    settings: Mapping[str, Any] | None = None,
    except_scores: Iterable[str] = (),
    registry: Registry | None = None,
) -> Findings:
    """The findings on a metric, checked on small SAEs and activations with planted directions.

    `settings` replace defaults; `except_scores` may change when dead latents are appended, as
    scores declared with `counts_dead` may; `registry` has the inputs that the metric needs;
    default: those of the installed plugins.
    """
    from saebench_canon.plugin_kit.metric_checks import CHECKS, MetricUnderTest

    counting = {score.name for score in metric.scores if score.counts_dead} | {*except_scores}
    candidate = MetricUnderTest(
        metric, settings or {}, frozenset(counting), registry or load_registry()
    )
    return report(metric.name, CHECKS, candidate)


def examine_world(kind: type[World], *, settings: Mapping[str, Any] | None = None) -> Findings:
    """The findings on a world, checked on a few thousand tokens; `settings` replace defaults."""
    from saebench_canon.plugin_kit.world_checks import CHECKS, WorldUnderTest

    return report(kind.named or kind.__name__, CHECKS, WorldUnderTest(kind, settings or {}))


def _without_fault(examine: Callable[P, Findings]) -> Callable[P, Findings]:
    """The same findings; raises AssertionError with a sentence for each check that failed."""

    @wraps(examine)
    def check(*args: P.args, **kwargs: P.kwargs) -> Findings:
        __tracebackhide__ = True
        return examine(*args, **kwargs).assert_ok()

    return check


check_adapter = _without_fault(examine_adapter)
check_metric = _without_fault(examine_metric)
check_world = _without_fault(examine_world)


def registry_of(plugin: ModuleType) -> Registry:
    """The registry of the built-ins and one plugin module, whether or not it is installed."""
    return load_registry([Path(str(plugin.__file__))], installed=False)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A name whose module imports torch, imported when it is first used."""
        if name not in _HOME:
            raise AttributeError(f"saebench_canon.testing has no name '{name}'")
        return getattr(import_module(f"saebench_canon.{_HOME[name]}"), name)
