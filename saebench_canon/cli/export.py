"""The command `export`: a data table's activations, an SAE, or its canonical latents, as files."""

from __future__ import annotations

import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError, nearest, writing
from saebench_canon.plugin.registry import load_registry

if TYPE_CHECKING:
    from saebench_canon.bench.measure import Bench
    from saebench_canon.bench.plan import Plan
    from saebench_canon.plugin.data import DataSpec
    from saebench_canon.plugin.world import TrueFeatures
    from saebench_canon.suite.specs import SaeSpec

ACTS, FEATURES, TRAIN = "acts.safetensors", "features.safetensors", "train.safetensors"


def export(options: Namespace) -> None:
    """Write what a suite calls by this name into a new folder, and print what is there."""
    from saebench_canon.bench.measure import Bench
    from saebench_canon.bench.plan import make_plan
    from saebench_canon.suite.load import find_suite

    folder = Path(options.output)
    if folder.exists():
        raise CanonError(f"{folder} already exists", where="-o", hint="Name a new folder.")
    registry = load_registry([Path(path) for path in options.plugin])
    store = Store(Path(options.store))
    plan = make_plan(find_suite(options.suite), registry, store, settings=options.settings)
    data, sae = _named(plan, options.name)
    store.prepare()
    bench = Bench(registry, store)
    draft = folder.with_name(f".{folder.name}.draft")
    with writing(folder):
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
            if options.canonical:
                lines = _canonical(bench, plan, sae, draft)
            elif data is not None:
                lines = _data(bench, data, draft, options.training)
            else:
                lines = _sae(bench, plan, sae, draft)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    for name, what in lines:
        print(f"wrote {folder / name}: {what}")


def _named(plan: Plan, name: str) -> tuple[DataSpec | None, SaeSpec | None]:
    """The data table or the SAE of this name."""
    saes = {sae.name: sae for sae in plan.suite.saes}
    if name in plan.suite.data:
        return plan.suite.data[name], None
    if name in saes:
        return None, saes[name]
    raise CanonError(
        f"the suite has neither data nor an SAE named '{name}'",
        hint=nearest(name, [*plan.suite.data, *saes]),
    )


def _data(
    bench: Bench, data: DataSpec, folder: Path, training: int | None
) -> list[tuple[str, str]]:
    """Write the activations that scores use, the features of a world, and tokens to train on."""
    from saebench_canon.inputs.mapped import write_activations

    acts = bench.artifacts.input("acts", data)
    write_activations(folder / ACTS, acts)
    lines = [(ACTS, f"acts [{len(acts):,}, {acts.d:,}], doc [{len(acts):,}]")]
    if bench.identities.available("features", data):
        features = bench.artifacts.input("features", data)
        _write_features(folder / FEATURES, features)
        firings = f"{len(features.codes.values):,} firings as token, feature, value"
        words = f"features [{len(features):,}, {acts.d:,}], density, parents, {firings}"
        lines.append((FEATURES, words))
    if training is not None:
        fresh = replace(data, fresh=training, tokens=None) if data.draws_fresh else data
        more = bench.artifacts.input("train_acts", fresh)
        write_activations(folder / TRAIN, more)
        lines.append((TRAIN, f"acts [{len(more):,}, {more.d:,}] of other tokens, to train on"))
    return lines


def _write_features(path: Path, features: TrueFeatures) -> None:
    import json

    import torch
    from safetensors.torch import save_file

    codes = features.codes
    tensors = {
        "features": features.rows,
        "density": features.density.float(),
        "parents": features.parents,
        "token": codes.token_ids(),
        "feature": codes.indices.to(torch.int64),
        "value": codes.values,
    }
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, {"names": json.dumps(list(features.names))})


def _sae(bench: Bench, plan: Plan, sae: SaeSpec | None, folder: Path) -> list[tuple[str, str]]:
    """Copy an SAE that the suite trains, in SAELens' format."""
    assert sae is not None
    if sae.source.training is None:
        raise CanonError(
            f"'{sae.name}' is not trained by this suite: it is {sae.source.ref}",
            hint="Copy it from there.",
        )
    data = plan.suite.data[sae.data] if sae.data is not None else None
    bench.artifacts.sae(sae, data)  # trains it if the store does not have it
    made = bench.store.artefact(bench.identities.sae(sae, data), _never, title=sae.name)
    lines = []
    for path in sorted(made.iterdir()):
        if path.name != "manifest.json":
            shutil.copyfile(path, folder / path.name)
            lines.append((path.name, f"of '{sae.name}'"))
    return lines


def _canonical(
    bench: Bench, plan: Plan, sae: SaeSpec | None, folder: Path
) -> list[tuple[str, str]]:
    """Write the canonical latents of an SAE as an SAE in SAELens' format."""
    import torch

    from saebench_canon.saes.formats.frankenstein import origin, some_latents, write

    if sae is None:
        raise CanonError("a data table has no canonical latents", where="--canonical")
    data = plan.suite.data[sae.data] if sae.data is not None else None
    latents = _canonical_latents(bench, plan, sae)
    whole = bench.artifacts.sae(sae, data)
    chosen = torch.zeros(whole.width, dtype=torch.bool)
    chosen[latents] = True
    k = None
    summary = f"{len(latents)} canonical of the {whole.width} latents of '{sae.name}'"
    if getattr(whole.coder, "activation", None) == "topk":
        if data is None:
            raise CanonError(
                f"'{sae.name}' keeps the largest codes of each token, and how many of them are "
                "canonical is not known without data",
                hint="Give the SAE `data` in the suite.",
            )
        codes = bench.artifacts.input("codes", data, sae)
        k = max(round(float(codes.counts.double()[chosen].sum()) / len(codes)), 1)
        summary += f"; the {k} largest codes of each token are kept, as many as they have there"
    description = sae.source.describe()
    part = some_latents(whole, chosen, k=k, normalize=description.normalize)
    made_of = {"of": sae.name, "digest": bench.identities.sae(sae, data), "latents": latents}
    write(part, folder, **origin(description), canonical=made_of)
    return [(path.name, summary) for path in sorted(folder.iterdir())]


def _canonical_latents(bench: Bench, plan: Plan, sae: SaeSpec) -> list[int]:
    """The numbers of an SAE's canonical latents; raises CanonError where none is known."""
    from saebench_canon.bench.results import rows_of, tables_of
    from saebench_canon.questions.canonical import list_of
    from saebench_canon.tables.summarise import summarise

    metrics = bench.registry.metrics
    rows = rows_of(plan.listed(), bench.store, metrics)
    for block in summarise(rows, metrics.values(), tables=tables_of(bench.store)).begun:
        listed = list_of(block, sae.name)
        if listed is not None and listed.count:
            return listed.canonical_latents
        if listed is not None and listed.against.confirms:
            raise CanonError(
                f"no latent of '{sae.name}' is canonical",
                hint="`saebench-canon show --canonical` says which tests they fail.",
            )
    raise CanonError(
        f"'{sae.name}' was not compared with another seed or a wider SAE",
        hint=f"Run the suite: saebench-canon run {plan.suite.path or plan.suite.name}",
    )


def _never(folder: Path) -> None:
    raise CanonError("the trained SAE has vanished from the store", hint="Run again.")
