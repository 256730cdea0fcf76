"""A setting may name an SAE: the published meta-SAE is read in the place of one trained here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from clone import PLUGINS
from made_up_hub import COMMIT, GPT2_SAES, GPT2_WIDTHS, cached
from other_processor import OtherProcessor
from planted import D, write_acts, write_sae
from safetensors.torch import load_file
from torch import Tensor, nn

from saebench_canon import Score, evaluate, metric
from saebench_canon.bench.estimates import estimate
from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.metrics.meta_sae.published import published
from saebench_canon.plugin.registry import Registry, load_registry
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.plugin_kit.schema import suite_schema
from saebench_canon.saes.fold import fold
from saebench_canon.suite.load import find_suite, load_suite

PLUGIN = PLUGINS / "batchtopk" / "saebench_canon_batchtopk.py"
PUBLISHED = "pleask/gpt2-small_blocks.8.hook_resid_pre_2304_topk_4_0.001_2000"
K = 4

pytestmark = pytest.mark.skipif(not PLUGIN.is_file(), reason="plugins/ is not here")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry([PLUGIN])


def meta_state(M: int = 24, seed: int = 0) -> dict[str, Tensor]:
    """A meta-SAE as its training leaves it: decoder rows not quite of unit norm."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(M, D, generator=g), dim=1)
    return {
        "b_dec": 0.05 * torch.randn(D, generator=g),
        "b_enc": torch.zeros(M),
        "W_enc": (rows + 0.05 * torch.randn(M, D, generator=g)).T.contiguous(),
        "W_dec": rows * (0.97 + 0.06 * torch.rand(M, 1, generator=g)),
    }


def write_meta(folder: Path, *, seed: int = 0, M: int = 24, **config: Any) -> Path:
    """`SAE.pt` and `Config.json` as they are stored with the published meta-SAE."""
    folder.mkdir(parents=True, exist_ok=True)
    root = nn.Module()
    for name, tensor in meta_state(M, seed).items():
        root.register_parameter(name, nn.Parameter(tensor))
    torch.save(root.state_dict(), folder / "SAE.pt")
    told = {
        "seed": 49, "batch_size": 16384, "lr": 0.001, "num_tokens": 2000, "l1_coeff": 0,
        "beta1": 0.9, "beta2": 0.99, "dtype": "torch.float32", "model_name": "gpt2-small",
        "site": "resid_pre", "layer": 8, "act_size": D, "dict_size": M, "device": "cuda",
        "input_unit_norm": False, "sae_type": "topk", "n_batches_to_dead": 100, "top_k": K,
        "top_k_aux": 512, "aux_penalty": 0.0625, "hook_point": "blocks.8.hook_resid_pre",
    }  # fmt: skip
    (folder / "Config.json").write_text(json.dumps(told | config))
    return folder


SUITE = """
[suite]
name = "named"

[[sae]]
name = "w{width}"
uri = "file:saes/w{width}"
axes = { width = [24, 96] }

[[metric]]
name = "meta_replace"
settings = { preset = "artifact", refit_steps = 3, meta = "file:published" }

[[metric]]
name = "meta_replace"
label = "trained"
settings = { steps = 3, refit_steps = 3 }
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two SAEs, a published meta-SAE, and a suite of them."""
    monkeypatch.chdir(tmp_path)
    for width in (24, 96):
        write_sae(tmp_path / "saes" / f"w{width}", width)
    write_meta(tmp_path / "published")
    (tmp_path / "named.toml").write_text(SUITE)
    return tmp_path


def planned(folder: Path, registry: Registry, text: str = SUITE, **how: Any) -> Plan:
    (folder / "named.toml").write_text(text)
    return make_plan(folder / "named.toml", registry, Store(folder / "store"), **how)


def ids(plan: Plan) -> dict[str, str]:
    return {case.label: case_id for case, case_id in zip(plan.cases, plan.ids, strict=True)}


def by_hand(rows: Tensor, state: Mapping[str, Tensor], W_dec: Tensor | None = None) -> Any:
    """Explained variance and MSE of unit rows in float64, selected over all rows as one batch."""
    wide = {name: weight.double() for name, weight in state.items()}
    unit = rows.double() / rows.double().norm(dim=1, keepdim=True)
    z = ((unit - wide["b_dec"]) @ wide["W_enc"]).relu()
    least = z.flatten().sort(descending=True).values[K * len(unit) - 1]
    directions = wide["W_dec"] if W_dec is None else W_dec
    left = unit - (z * (z >= least)) @ directions - wide["b_dec"]
    spread = unit - unit.mean(dim=0)
    return 1 - float((left**2).sum() / (spread**2).sum()), float((left**2).mean())


def test_the_code_that_sets_a_threshold_passes_it_on_every_processor() -> None:
    """Selected in a permuted batch and encoded in order, its last digits are not the same."""
    rows = torch.nn.functional.normalize(
        torch.randn(60, D, generator=torch.Generator().manual_seed(1)), dim=1
    )
    for seed in range(5):
        state = meta_state(seed=seed)
        sae = fold(
            W_enc=state["W_enc"], W_dec=state["W_dec"], b_dec=state["b_dec"],
            activation="batchtopk", k=K, apply_b_dec_to_input=True,
        )  # fmt: skip
        with OtherProcessor():
            codes = published(sae, rows).encode(rows[None])
        assert int((codes > 0).sum()) == K * len(rows)


def nearest(state: Mapping[str, Tensor], others: Tensor) -> Tensor:
    """Each decoder row's length along the nearest of the others."""
    rows = state["W_dec"].double()
    unit = others.double() / others.double().norm(dim=1, keepdim=True)
    return unit[(rows @ unit.T).argmax(dim=1)] * rows.norm(dim=1, keepdim=True)


def test_a_local_meta_sae_is_read_and_evaluated(here: Path, registry: Registry) -> None:
    plan = planned(here, registry)
    bench = Bench(registry, plan.store)
    case = next(case for case in plan.cases if case.label == "meta_replace")
    record = bench.measure(case)
    scores = {name: score["value"] for name, score in record.scores.items()}
    small, large = (load_file(here / f"saes/w{w}/sae_weights.safetensors")["W_dec"]
                    for w in (24, 96))  # fmt: skip
    explained, mse = by_hand(large, meta_state())
    assert scores["explained_variance"] == pytest.approx(explained, abs=1e-5)
    assert scores["mse"] == pytest.approx(mse, rel=1e-5)
    explained, mse = by_hand(large, meta_state(), nearest(meta_state(), small))
    assert scores["replaced"] == pytest.approx(explained, abs=1e-5)
    assert scores["mse_replaced"] == pytest.approx(mse, rel=1e-5)
    assert str(record.settings["meta"]).endswith("published")
    told = record.provenance["named"]["meta"]
    assert told["ref"] == record.settings["meta"]
    assert told["digest"].startswith("batchtopk-sha256:")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up hub cache with the ladder's SAEs and the published meta-SAE."""
    home = tmp_path / "home"
    repository, write = GPT2_SAES
    write(home / "scratch" / repository)
    cached(home, repository, home / "scratch" / repository)
    cached(home, PUBLISHED, write_meta(home / "scratch" / "meta"))
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return home


def decoder(hub: Path, width: int) -> Tensor:
    path = f"blocks.8.hook_resid_pre_{width}/sae_weights.safetensors"
    return load_file(next((hub / "hub").glob(f"*/snapshots/*/{path}")))["W_dec"]


def test_the_packaged_suite_reads_the_published_meta_sae_from_the_hub(
    hub: Path, tmp_path: Path, registry: Registry
) -> None:
    store = Store(tmp_path / "store")
    quick = ["metric.meta_replace.settings.refit_steps=3", "metric.beside_3072.settings.draws=2",
             "metric.beside_3072.settings.refit_steps=3"]  # fmt: skip
    plan = make_plan(find_suite("meta-sae-published"), registry, store, settings=quick)
    subjects = {case.label: [sae.name for sae in case.subject] for case in plan.cases}
    assert subjects["meta_replace"] == ["w6144", "w49152"]
    assert subjects["beside_3072"] == ["w3072", "w49152"]
    bench = Bench(registry, store)
    found = {
        case.label: {name: each["value"] for name, each in bench.measure(case).scores.items()}
        for case in plan.cases
    }
    commits = store.record(plan.ids[0]).provenance["commits"]  # type: ignore[union-attr]
    refs = {str(setting) for setting in plan.cases[0].settings.values()} & commits.keys()
    assert [ref.partition("//")[2] for ref in refs] == [PUBLISHED]
    assert set(commits.values()) == {COMMIT}
    assert len(commits) == 1 + len(plan.cases[0].subject)
    rows, state = decoder(hub, 49152), meta_state()
    assert len(rows) == GPT2_WIDTHS[49152]
    ladder = torch.cat([decoder(hub, width) for width in (768, 1536, 3072, 6144)])
    for label, others in (("meta_replace", ladder), ("beside_3072", decoder(hub, 3072))):
        explained, mse = by_hand(rows, state)
        assert found[label]["explained_variance"] == pytest.approx(explained, abs=1e-5)
        assert found[label]["mse"] == pytest.approx(mse, rel=1e-5)
        _, mse = by_hand(rows, state, nearest(state, others))
        assert found[label]["mse_replaced"] == pytest.approx(mse, rel=1e-5)
    explained, mse = by_hand(rows, state)
    assert found["meta_sae"]["explained_variance"] == pytest.approx(explained, abs=1e-5)
    assert found["meta_sae"]["mse"] == pytest.approx(mse, rel=1e-5)
    assert found["meta_sae"]["composed_share"] is None
    listed = {case.label: case.references for case in plan.listed()}
    assert listed["meta_sae"]["explained_variance"].value == 0.5547
    assert listed["meta_sae"]["mse"].value == 0.00057942
    assert listed["meta_replace"]["explained_variance"].value == 0.5547
    assert listed["meta_replace"]["mse"].value == 0.00057942
    assert listed["beside_3072"]["graph_overlap"].value == 0.2892


def test_without_the_cache_the_packaged_suite_is_planned_and_its_download_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Path, registry: Registry
) -> None:
    there = make_plan(find_suite("meta-sae-published"), registry, Store(tmp_path / "store"))
    assert not estimate(there, registry, speed=5e10).unsized
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    plan = make_plan(find_suite("meta-sae-published"), registry, Store(tmp_path / "store"))
    assert plan.ids == there.ids
    told = estimate(plan, registry, speed=5e10)
    assert f"SAE batchtopk://{PUBLISHED}" in told.unsized
    assert told.downloads == 6


def test_what_the_sae_holds_is_part_of_the_case_and_its_place_is_not(
    here: Path, registry: Registry
) -> None:
    before = ids(planned(here, registry))
    shutil.move(here / "published", here / "elsewhere")
    moved = ids(planned(here, registry, SUITE.replace("file:published", "batchtopk:elsewhere")))
    assert moved == before
    write_meta(here / "elsewhere", seed=1)
    changed = ids(planned(here, registry, SUITE.replace("file:published", "file:elsewhere")))
    assert changed["trained"] == before["trained"]
    assert changed["meta_replace"] != before["meta_replace"]


def test_a_setting_that_names_no_sae_is_no_part_of_the_case(here: Path, registry: Registry) -> None:
    """So that a metric may learn to read one without making its records unfindable."""
    from dataclasses import replace

    from saebench_canon.bench.identity import Identities

    plan = planned(here, registry)
    case = next(case for case in plan.cases if case.label == "trained")
    without = dict(case.settings)
    assert without.pop("meta") is None
    kinds = {name: kind for name, kind in case.metric.kinds.items() if name != "meta"}
    older = replace(case, settings=without, metric=replace(case.metric, kinds=kinds))
    assert Identities(registry, plan.store).case(older) == ids(plan)["trained"]


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ('"file:publishd"', r"publishd does not exist .*'published'"),
        ('"batchtopkk://a/b"', r"unknown scheme 'batchtopkk'.*'batchtopk'"),
        ('"published"', "'published' is not a ref"),
        ("7", "the setting 'meta' must name an SAE, got 7"),
        ('"file:saes"', "holds no checkpoint of a known format"),
        ('"file:truncated"', "SAE.pt"),
    ],
)
def test_what_cannot_be_read_is_said_when_the_suite_is_read(
    here: Path, registry: Registry, written: str, says: str
) -> None:
    write_meta(here / "truncated")
    whole = (here / "truncated" / "SAE.pt").read_bytes()
    (here / "truncated" / "SAE.pt").write_bytes(whole[: len(whole) // 2])
    text = SUITE.replace('"file:published"', written)
    with pytest.raises(CanonError, match=says) as error:
        load_suite(_written(here, text), registry)
    assert "named.toml, [[metric]] 'meta_replace'" in str(error.value)


def _written(folder: Path, text: str) -> Path:
    (folder / "named.toml").write_text(text)
    return folder / "named.toml"


@pytest.mark.parametrize("uri", ["batchtopk://pleask/it", "file:published"])
def test_a_format_whose_plugin_is_not_there_is_named(here: Path, uri: str) -> None:
    text = SUITE.replace("file:published", uri)
    with pytest.raises(CanonError, match="pip install saebench-canon-batchtopk"):
        load_suite(_written(here, text), load_registry())


def test_what_normalises_its_input_is_refused(here: Path, registry: Registry) -> None:
    write_meta(here / "published", input_unit_norm=True)
    plan = planned(here, registry)
    case = next(case for case in plan.cases if case.label == "meta_replace")
    with pytest.raises(CanonError, match=r"normalises its input \(layer_norm\)"):
        Bench(registry, plan.store).measure(case)


def test_its_path_is_that_of_the_suite_that_names_it(here: Path, registry: Registry) -> None:
    before = ids(planned(here, registry))
    (here / "below").mkdir()
    over = here / "below" / "over.toml"
    over.write_text('extends = "../named.toml"\n[suite]\nname = "over"\n')
    assert ids(make_plan(over, registry, Store(here / "store"))) == before
    setting = ["metric.trained.settings.meta=file:published"]
    assert set(ids(planned(here, registry, settings=setting)).values()) != set(before.values())


def test_a_notebook_names_it_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "saebench_canon.plugin.registry.load_registry", lambda: load_registry([PLUGIN])
    )
    table = evaluate(
        ["saes/w24", "saes/w96"],
        metrics=["meta_replace"],
        settings={"meta_replace": {"meta": "file:published", "refit_steps": 2}},
    )
    rows = load_file(here / "saes/w96/sae_weights.safetensors")["W_dec"]
    found = table.set_index("score")["value"]["explained_variance"]
    assert found == pytest.approx(by_hand(rows, meta_state())[0], abs=1e-5)


def test_metrics_that_agree_in_settings_train_one_meta_sae(here: Path, registry: Registry) -> None:
    write_sae(here / "saes" / "w48", 48)
    text = SUITE.partition("[[metric]]")[0].replace("[24, 96]", "[24, 48, 96]")
    for name in ("meta_sae", "meta_replace", "meta_ladder"):
        over = 'over = "group:width"' if name == "meta_ladder" else ""
        text += f'[[metric]]\nname = "{name}"\n{over}\nsettings = {{ steps = 3, k = 2 }}\n'
    plan = planned(here, registry, text)
    bench = Bench(registry, plan.store)
    cases = [case for case in plan.cases if case.metric.name in ("meta_sae", "meta_replace")]
    assert len(cases) == 5
    for case in cases:
        bench.measure(case)
    fits = [load_file(path) for path in plan.store.root.glob("artefacts/*/kept.safetensors")]
    whole = [fit["W_dec"].shape[1] for fit in fits if "W_dec" in fit]
    assert sorted(whole) == [24 // 4, 48 // 4, 96 // 4]
    (ladder,) = [case for case in plan.cases if case.metric.name == "meta_ladder"]
    assert [sae.name for sae in ladder.subject] == ["w24", "w48", "w96"]
    assert bench.measure(ladder).scores["meta_l0_largest"]["value"] > 0
    docs = (PLUGIN.parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for case in (cases[-1], ladder):
        section = docs.split(f"\n## {case.metric.name}\n")[1].split("\n## ")[0]
        for name, path in bench.measure(case).tables.items():
            told = section.split(f"Table `{name}`", 1)[1]
            for column in pd.read_parquet(plan.store.root / path).columns:
                assert f"`{column}`" in told, f"{case.metric.name}, table {name}, {column}"


def test_schemas_take_a_ref_there(registry: Registry) -> None:
    told = next(
        each["then"]["properties"]["settings"]["properties"]
        for each in suite_schema(registry)["$defs"]["metric"]["allOf"]
        if each["if"]["properties"]["name"]["const"] == "meta_replace"
    )
    assert told["meta"] == {"type": "string"}
    assert told["width"] == {"type": ["integer"]}


def test_a_metric_of_a_plugin_gets_the_sae(
    here: Path, registry: Registry, write_suite: Callable[[str], Path]
) -> None:
    seen: list[object] = []

    @metric(of="sae", version=1, scores=[Score("latents")])
    def beside(sae: object, *, other: CanonicalSAE | None = None) -> dict[str, float]:
        """Counts the other's latents."""
        seen.append(other)
        return {"latents": 0.0 if other is None else float(other.width)}

    assert beside.sae_settings == ("other",)
    registry.metrics[beside.name] = beside
    try:
        write_acts(here / "acts.safetensors")
        text = SUITE.partition("[[metric]]")[0] + '[[metric]]\nname = "beside"\n'
        named = text + 'label = "it"\nsettings.other = "file:saes/w24"\n'
        plan = make_plan(write_suite(named), registry, Store(here / "store"))
        scores = [Bench(registry, plan.store).measure(case).scores for case in plan.cases]
        assert [each["latents"]["value"] for each in scores] == [24.0, 24.0]
        assert all(isinstance(sae, CanonicalSAE) for sae in seen)
        plan = make_plan(write_suite(text), registry, Store(here / "store"))
        scores = [Bench(registry, plan.store).measure(case).scores for case in plan.cases]
        assert [each["latents"]["value"] for each in scores] == [0.0, 0.0]
    finally:
        del registry.metrics[beside.name]


def test_a_setting_that_names_an_sae_has_no_default() -> None:
    def wrong(sae: object, *, other: CanonicalSAE = "file:x") -> None:  # type: ignore[assignment]
        """Counts nothing."""

    with pytest.raises(CanonError, match="the SAE setting 'other' has a default"):
        metric(of="sae", version=1, scores=[])(wrong)
