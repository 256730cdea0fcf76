"""Measuring SAEs from a notebook, in memory or by ref, with the scores of a suite."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from saebench_canon.plugin.activations import Acts
    from saebench_canon.plugin.registry import Registry
    from saebench_canon.plugin.source import SaeSource
    from saebench_canon.suite.specs import Suite


def evaluate(
    saes: Mapping[str, object] | Sequence[object],
    acts: Tensor | Acts | None = None,
    metrics: Iterable[str] | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    store: str | Path | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> pd.DataFrame:
    """Scores of SAEs on activations, one row per score, as in `show --json`.

    Args:
        saes: SAEs by name, or a sequence: any objects with `encode`, `decode`, `W_dec` [m, d] and
            `b_dec` [d], or refs such as "file:PATH". Pairs are neighbouring widths, smaller first;
            groups are SAEs of one width.
        acts: activations [n, d], or `Acts` with each token's document; None: only scores of
            the decoder.
        metrics: names of metrics; None: those of reconstruction.
        settings: settings that differ from the defaults, by metric.
        seed: the seed of every case.
        store: where records are kept; None: nowhere.
        device: where SAEs compute.
        threads: threads of each case.

    Raises:
        CanonError: an unknown metric or setting, SAEs that cannot be brought to canonical form or
            whose width is not the activations', or a metric that finds no pair or group.
    """
    import pandas as pd

    if threads < 1:
        raise CanonError(f"'threads' must be at least 1, got {threads}")
    from saebench_canon.bench.artifact_cache import Execution
    from saebench_canon.bench.measure import Bench
    from saebench_canon.bench.plan import plan_of
    from saebench_canon.bench.results import rows_of
    from saebench_canon.bench.store import Store
    from saebench_canon.plugin.registry import load_registry

    registry = load_registry()
    names = _metric_names(metrics, registry)
    with tempfile.TemporaryDirectory(prefix="canon-") as scratch:
        record_store = Store(Path(store) if store is not None else Path(scratch) / "store")
        data = _write_acts(acts, Path(scratch))
        suite = _suite(_by_name(saes), data, names, settings or {}, seed, registry)
        plan = plan_of(suite, registry, record_store)
        bench = Bench(registry, record_store, Execution(device=device, threads=threads))
        if plan.without_subject:
            raise CanonError(
                f"metric '{plan.without_subject[0]}' finds no pair or group among these SAEs",
                hint="Pairs are of neighbouring widths, groups of SAEs of one width.",
            )
        for case, case_id in zip(plan.cases, plan.ids, strict=True):
            if record_store.record(case_id) is None:
                bench.measure(case)
        rows = rows_of(plan.listed(), record_store, registry.metrics)
        return pd.DataFrame([row.to_dict() for row in rows])


def _metric_names(metrics: Iterable[str] | None, registry: Registry) -> list[str]:
    """The names of the metrics; None: those of reconstruction."""
    from saebench_canon.plugin.metric import with_role

    if metrics is None:
        declared = registry.metrics.values()
        return [metric.name for metric in with_role("reconstruction", declared)]
    return [metrics] if isinstance(metrics, str) else list(metrics)


def _by_name(saes: Mapping[str, object] | Sequence[object]) -> dict[str, object]:
    if isinstance(saes, Mapping):
        by_name = {str(name): sae for name, sae in saes.items()}
        if len(by_name) < len(saes):
            raise CanonError(f"two SAEs have the same name among {list(saes)}")
        return by_name
    if isinstance(saes, str) or not isinstance(saes, Sequence):
        raise CanonError("'saes' must be a mapping or a list of SAEs")
    return {f"sae{index}": sae for index, sae in enumerate(saes)}


def _write_acts(acts: Tensor | Acts | None, folder: Path) -> Path | None:
    """Write the activations to a file, whose content is the identity of the data."""
    if acts is None:
        return None
    import torch
    from safetensors.torch import save_file

    from saebench_canon.plugin.activations import Acts

    x, doc = (acts.x, acts.doc) if isinstance(acts, Acts) else (acts, None)
    if not isinstance(x, torch.Tensor) or x.ndim != 2 or not x.is_floating_point():
        got = f"{list(x.shape)} of {x.dtype}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise CanonError(f"'acts' must be a tensor [n, d] of floating point numbers, got {got}")
    if x.layout is not torch.strided or x.is_meta:
        raise CanonError(f"'acts' must be a dense tensor with values, got {x.layout} on {x.device}")
    tensors = {"acts": x.detach().cpu().float().contiguous()}
    if doc is not None:
        tensors["doc"] = doc.cpu().contiguous()
    save_file(tensors, folder / "acts.safetensors")
    return folder / "acts.safetensors"


def _suite(
    saes: Mapping[str, object],
    file: Path | None,
    metrics: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    seed: int,
    registry: Registry,
) -> Suite:
    """The suite that the arguments of `evaluate` describe."""
    from collections import Counter

    from saebench_canon.data.activations_file import ActivationFile
    from saebench_canon.plugin.data import DataSpec
    from saebench_canon.plugin.ref import Ref, is_bare_path
    from saebench_canon.saes.formats.in_memory import InMemory
    from saebench_canon.saes.source import Checkpoint
    from saebench_canon.suite.metrics import parse_metric, refuse_shared_labels
    from saebench_canon.suite.specs import SaeSpec, Suite
    from saebench_canon.suite.toml_table import TomlTable

    if not saes:
        raise CanonError("there are no SAEs to measure")
    for name in settings:
        if name not in metrics:
            raise CanonError(f"'settings' names '{name}', which is not measured")
    data = {}
    if file is not None:
        data["data"] = DataSpec("data", "evaluate, acts", ActivationFile(file))
    specs = []
    sae_counts: Counter[int] = Counter()
    for name, sae in saes.items():
        source: SaeSource
        if isinstance(sae, str):
            ref = Ref.parse(f"file:{sae}" if is_bare_path(sae) else sae).within(Path.cwd())
            source = Checkpoint(ref, registry)
        else:
            source = InMemory(sae, name)
        width = source.describe().width
        if width is None:
            raise CanonError(f"{sae} does not say its width")
        axes = {"width": width, "seed": sae_counts[width]}
        sae_counts[width] += 1
        specs.append(
            SaeSpec(name, axes, next(iter(data), None), source, "float32", f"SAE '{name}'")
        )
    tables = [
        parse_metric(
            TomlTable(
                {"name": name, "settings": dict(settings.get(name, {})), "seeds": [seed]},
                f"evaluate, metric '{name}'",
            ),
            ["width", "seed"],
            registry,
            Path.cwd(),
        )
        for name in metrics
    ]
    refuse_shared_labels(tables)
    return Suite("notebook", 1, None, data, specs, tables, ())
