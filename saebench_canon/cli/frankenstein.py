"""What the command `frankenstein` does: the small SAE with a large one's helpful latents, saved."""

from __future__ import annotations

import tomllib
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.metric import with_role
from saebench_canon.plugin.registry import Registry, load_registry

if TYPE_CHECKING:
    from saebench_canon.bench.bench import Bench
    from saebench_canon.bench.plan import Plan
    from saebench_canon.plugin.adapter import Description
    from saebench_canon.plugin.metric import Metric
    from saebench_canon.plugin.record import Record
    from saebench_canon.suite.cases import Case


def frankenstein(options: Namespace) -> None:
    """Save the small SAE with all helpful latents of the large one, and print what it gains."""
    from saebench_canon.bench.bench import Bench
    from saebench_canon.saes.formats.frankenstein import encoders

    folder = Path(options.to)
    if folder.exists():
        raise CanonError(f"{folder} is there already", where="--to", hint="Name a new folder.")
    registry = load_registry([Path(each) for each in options.plugin])
    store = Store(Path(options.store))
    adding, reconstructing = (
        with_role(role, registry.metrics.values())[0] for role in ("additions", "reconstruction")
    )
    metrics = f"{reconstructing.name},{adding.name}"
    plan = _plan([options.small, options.large], metrics, options, registry, store)
    case = _pair(plan, adding, options)
    store.prepare()
    bench = Bench(registry, store)
    encoders(*(bench.workshop.sae(sae, case.data) for sae in case.subject))  # or says why not
    record = bench.measure(case, again=False)
    added = _helpful(store, record, options.threshold)
    _save(bench, case, record, added, options)
    plan = _plan([f"file:{folder}"], reconstructing.name, options, registry, store)
    after = bench.measure(plan.cases[0], again=False).scores["mse"]["value"]
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
    """What the SAEs and the data of the command line stand for, as `run` understands them."""
    from saebench_canon.bench.plan import plan_of
    from saebench_canon.suite.load import parse_suite
    from saebench_canon.suite.one_off import Asked, one_off_suite

    asked = Asked(metrics, options.data, options.hook, options.text)
    text, _, left_out = one_off_suite(saes, asked, registry)
    if left_out:
        raise CanonError(left_out[0])
    suite = parse_suite(tomllib.loads(text), registry, file="frankenstein")
    return plan_of(suite, registry, store)


def _pair(plan: Plan, adding: Metric, options: Namespace) -> Case:
    """The case of adding latents, of the two SAEs in the order in which they are named."""
    saes = plan.suite.saes
    if len(saes) != 2:
        raise CanonError(
            f"{options.small} and {options.large} hold {len(saes)} SAEs", hint="Name two."
        )
    pairs = [case for case in plan.cases if case.metric is adding]
    if not pairs:
        raise CanonError(
            "the two SAEs read activations in different ways or at different hooks, "
            "so that no latent of one can stand in the other"
        )
    if pairs[0].subject[0] is not saes[0]:
        raise CanonError(f"{options.small} is the larger SAE", hint="Name the smaller one first.")
    return pairs[0]


def _helpful(store: Store, record: Record, threshold: float | None) -> list[int]:
    """The large latents that lower the MSE when added alone, bias fixed; novel if θ is given."""
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
        raise CanonError(f"no latent{below} lowers the MSE when it is added, so none was")
    return [int(latent) for latent in latents.loc[helps, "latent"]]


def _save(
    bench: Bench, case: Case, record: Record, added: Sequence[int], options: Namespace
) -> None:
    """Make the SAE and write it, with where it comes from."""
    import torch

    from saebench_canon.saes.formats.frankenstein import frankenstein, save

    small, large = (bench.workshop.sae(sae, case.data) for sae in case.subject)
    chosen = torch.zeros(large.width, dtype=torch.bool)
    chosen[list(added)] = True
    told = case.subject[0].source.describe()
    made = frankenstein(small, large, chosen, normalize=told.normalize)
    origin = {
        "small": record.subject[0]["digest"],
        "large": record.subject[1]["digest"],
        "record": record.id,
        "threshold": options.threshold,
        "added": list(added),
    }
    metadata = _metadata(told, options.hook)
    save(made, Path(options.to), **metadata, frankenstein=origin)


def _metadata(told: Description, hook: str | None) -> dict[str, Any]:
    """What the small SAE says of the model it belongs to, under SAELens' names."""
    metadata: dict[str, Any] = {
        "hook_name": hook or told.hook,
        "model_name": told.model,
        "prepend_bos": told.prepend_bos,
    }
    if told.center_writing_weights is not None:
        centred = {"center_writing_weights": told.center_writing_weights}
        metadata["model_from_pretrained_kwargs"] = centred
    return {name: value for name, value in metadata.items() if value is not None}
