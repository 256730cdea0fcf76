"""The command `frankenstein`: save a small SAE with the helpful latents of a larger one."""

from __future__ import annotations

import tomllib
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.metric import with_role
from saebench_canon.plugin.registry import Registry, load_registry

if TYPE_CHECKING:
    from saebench_canon.bench.measure import Bench
    from saebench_canon.bench.plan import Plan
    from saebench_canon.plugin.metric import Metric
    from saebench_canon.plugin.record import Record
    from saebench_canon.suite.cases import Case


def frankenstein(options: Namespace) -> None:
    """Save the small SAE with all helpful latents of the large one, and print what it gains."""
    from saebench_canon.bench.measure import Bench
    from saebench_canon.saes.formats.frankenstein import encoders

    folder = Path(options.to)
    if folder.exists():
        raise CanonError(f"{folder} already exists", where="--to", hint="Name a new folder.")
    registry = load_registry([Path(path) for path in options.plugin])
    store = Store(Path(options.store))
    adding, reconstructing = (
        with_role(role, registry.metrics.values())[0] for role in ("additions", "reconstruction")
    )
    metrics = f"{reconstructing.name},{adding.name}"
    plan = _plan([options.small, options.large], metrics, options, registry, store)
    case = _pair(plan, adding, options)
    store.prepare()
    bench = Bench(registry, store)
    encoders(
        *(bench.artifacts.sae(sae, case.data) for sae in case.subject)
    )  # raises where one has no encoder
    record = bench.measure(case, rerun=False)
    added = _helpful(store, record, options.threshold)
    _save(bench, case, record, added, options)
    plan = _plan([f"file:{folder}"], reconstructing.name, options, registry, store)
    after = bench.measure(plan.cases[0], rerun=False).scores["mse"]["value"]
    before = record.scores["small_mse"]["value"]
    small, large = (sae.axes["width"] for sae in case.subject)
    harm = " (each helps alone, together they harm)" if after > before else ""
    print(
        f"Added {len(added)} of {large} latents to the smaller SAE's {small}: "
        f"MSE {before:.4g} before and {after:.4g} after{harm}, written to {folder}."
    )


def _plan(
    saes: Sequence[str], metrics: str, options: Namespace, registry: Registry, store: Store
) -> Plan:
    """The plan of the SAEs and data on the command line, as `run` makes it."""
    from saebench_canon.bench.plan import plan_of
    from saebench_canon.suite.from_command_line import Options, suite_of_saes
    from saebench_canon.suite.load import parse_suite

    query = Options(metrics, options.data, options.hook, options.text)
    text, _, left_out = suite_of_saes(saes, query, registry)
    if left_out:
        raise CanonError(left_out[0])
    suite = parse_suite(tomllib.loads(text), registry, file="frankenstein")
    return plan_of(suite, registry, store)


def _pair(plan: Plan, adding: Metric, options: Namespace) -> Case:
    """The case of adding latents, of the two SAEs in the order they are named."""
    saes = plan.suite.saes
    if len(saes) != 2:
        raise CanonError(
            f"{options.small} and {options.large} hold {len(saes)} SAEs, not 2",
            hint="Name one each.",
        )
    pairs = [case for case in plan.cases if case.metric is adding]
    if not pairs:
        raise CanonError(
            "the two SAEs read activations in different ways or at different hooks, "
            "so no latent of one can be added to the other"
        )
    if pairs[0].subject[0] is not saes[0]:
        raise CanonError(f"{options.small} is the larger SAE", hint="Name the smaller one first.")
    return pairs[0]


def _helpful(store: Store, record: Record, threshold: float | None) -> list[int]:
    """The large latents that each lower the MSE, bias fixed; with θ, only those below it."""
    import pandas as pd

    if "latents" not in record.tables:
        reasons = (score.get("reason") for score in record.scores.values())
        reason = next((reason for reason in reasons if reason), "no latent is live")
        raise CanonError(f"no latent can be added: {reason}")
    latents = pd.read_parquet(store.root / record.tables["latents"])
    helps = latents["delta_mse_fixed_bias"] < 0
    if threshold is not None:
        helps &= latents["max_cos"] < threshold
    if not helps.any():
        below = "" if threshold is None else f" of those with a largest cosine below {threshold:g}"
        raise CanonError(f"no latent{below} lowers the MSE when it is added, so none was added")
    return [int(latent) for latent in latents.loc[helps, "latent"]]


def _save(
    bench: Bench, case: Case, record: Record, added: Sequence[int], options: Namespace
) -> None:
    """Make the SAE and write it, with where it comes from."""
    import torch

    from saebench_canon.saes.formats.frankenstein import frankenstein, origin, save

    small, large = (bench.artifacts.sae(sae, case.data) for sae in case.subject)
    chosen = torch.zeros(large.width, dtype=torch.bool)
    chosen[list(added)] = True
    description = case.subject[0].source.describe()
    combined = frankenstein(small, large, chosen, normalize=description.normalize)
    made_of = {
        "small": record.subject[0]["digest"],
        "large": record.subject[1]["digest"],
        "record": record.id,
        "threshold": options.threshold,
        "added": list(added),
    }
    metadata = origin(description, options.hook)
    save(combined, Path(options.to), **metadata, frankenstein=made_of)
