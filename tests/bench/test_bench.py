"""The bench: inputs made once, records whole, scores the same however they are computed."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from planted import write_acts

from saebench_canon.bench.artifact_cache import Execution
from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.sealed_record import opened
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.record import Record
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.sae import CanonicalSAE

REGISTRY = load_registry()
KEYS = {
    "id", "metric", "version", "settings", "subject", "peers", "seed", "scores", "tables", "marks",
    "provenance", "identity", "digests", "format", "digest",
}  # fmt: skip


def planned(suite: Path, store: str) -> tuple[Plan, Bench]:
    store_of_plan = Store(suite.parent / store)
    return make_plan(suite, REGISTRY, store_of_plan), Bench(REGISTRY, store_of_plan)


def measure(plan: Plan, bench: Bench) -> dict[str, Record]:
    return {str(case): bench.measure(case) for case in plan.cases}


def test_each_sae_encodes_each_batch_once_for_all_metrics(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = CanonicalSAE.encode_sparse

    def counting(sae: CanonicalSAE, x: torch.Tensor) -> object:
        encoded.append(len(x))
        return encode(sae, x)

    monkeypatch.setattr(CanonicalSAE, "encode_sparse", counting)
    plan, bench = planned(suite, "store")
    measure(plan, bench)
    assert encoded == [600] * 4  # four SAEs; fidelity, pairs, floors and groups share their codes


def test_records_have_the_contracts_keys(suite: Path) -> None:
    plan, bench = planned(suite, "store")
    record = bench.measure(plan.cases[0])
    fields = json.loads((bench.store.root / "records" / f"{record.id}.json").read_text())
    assert set(fields) == KEYS
    assert set(fields["scores"]["mse"]) >= {"value", "stderr", "n", "unit"}
    assert set(fields["subject"][0]) == {"ref", "digest"}
    latents = pd.read_parquet(bench.store.root / fields["tables"]["latents"])
    assert len(latents) == 24
    assert opened(fields, record.id) == record


def test_cold_and_cached_scores_are_the_same(suite: Path) -> None:
    plan, bench = planned(suite, "store")
    cold = measure(plan, bench)
    cached = measure(*planned(suite, "store"))
    assert {key: record.scores for key, record in cold.items()} == {
        key: record.scores for key, record in cached.items()
    }


def test_the_order_of_cases_changes_nothing(suite: Path) -> None:
    plan, bench = planned(suite, "forth")
    forth = measure(plan, bench)
    backwards = replace(plan, cases=plan.cases[::-1], ids=plan.ids[::-1])
    back = measure(backwards, planned(suite, "back")[1])
    assert {key: record.scores for key, record in forth.items()} == {
        key: record.scores for key, record in back.items()
    }


def test_batch_size_changes_no_score_but_by_rounding(suite: Path) -> None:
    plan, whole = planned(suite, "whole")
    parts = Bench(REGISTRY, Store(suite.parent / "parts"), Execution(batch_size=37))
    for case in plan.cases:
        if case.metric.name != "meta_sae":
            first, second = whole.measure(case).scores, parts.measure(case).scores
            for name, score in first.items():
                if score["value"] is None:
                    assert second[name] == score
                else:
                    assert second[name]["value"] == pytest.approx(score["value"], rel=1e-5)


def test_the_global_generator_is_left_alone(suite: Path) -> None:
    plan, bench = planned(suite, "store")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    measure(plan, bench)
    assert torch.equal(before, torch.get_rng_state())


def test_a_case_without_data_says_what_it_lacks(suite: Path) -> None:
    suite.write_text(suite.read_text().replace('data = "planted"\n', ""))
    records = {record.metric: record for record in measure(*planned(suite, "store")).values()}
    for score in records["fidelity"].scores.values():
        assert score["value"] is None
        assert score["reason"] == "needs activations, and the SAE has no data"
    assert records["stitching"].scores["novel_share"]["value"] is not None
    assert any("counts as live" in mark["reason"] for mark in records["meta_sae"].marks)


def test_two_documents_sets_give_other_data(suite: Path) -> None:
    plan, _ = planned(suite, "store")
    write_acts(suite.parent / "acts.safetensors", documents=7)
    changed_plan, _ = planned(suite, "store")
    assert not set(plan.ids) & set(changed_plan.ids)


def _make(root: str, log: str) -> None:
    import time

    def make(folder: Path) -> None:
        with Path(log).open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        (folder / "x").write_text("done")

    made = Store(Path(root)).artefact("thing", make, title="a thing")
    assert (made / "x").read_text() == "done"


def test_what_two_processes_want_at_once_is_made_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_make, args=(str(tmp_path / "s"), str(log))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert log.read_text() == "made\n"


def test_an_artefact_whose_making_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def make(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        store.artefact("thing", make, title="a thing")
    assert not list((tmp_path / "artefacts").iterdir())


def test_a_damaged_record_counts_as_not_measured(suite: Path) -> None:
    plan, bench = planned(suite, "store")
    record = bench.measure(plan.cases[0])
    path = bench.store.root / "records" / f"{record.id}.json"
    path.write_text(path.read_text()[:100])
    assert bench.store.record(record.id) is None
    assert plan.state(record.id) == "missing"


def test_a_damaged_artefact_is_computed_anew(suite: Path) -> None:
    plan, bench = planned(suite, "store")
    first = measure(plan, bench)
    for path in (bench.store.root / "artefacts").glob("*/codes.safetensors"):
        path.write_bytes(path.read_bytes()[:50])
    rerun = measure(*planned(suite, "store"))
    assert {key: record.scores for key, record in first.items()} == {
        key: record.scores for key, record in rerun.items()
    }


def test_damaged_memos_and_stored_tensors_are_computed_anew(suite: Path) -> None:
    _, bench = planned(suite, "store")
    calls: list[str] = []

    def numbers() -> dict[str, float]:
        calls.append("memo")
        return {"mean": 0.25}

    def tensors() -> dict[str, torch.Tensor]:
        calls.append("keep")
        return {"rows": torch.arange(6.0)}

    shop = bench.artifacts
    for _ in range(3):  # made, damaged and made anew, read back
        assert shop.memo({"name": "it"}, numbers) == {"mean": 0.25}
        assert torch.equal(shop.keep({"name": "it"}, tensors)["rows"], torch.arange(6.0))
        if len(calls) == 2:
            for path in (bench.store.root / "artefacts").glob("*/*"):
                path.write_bytes(path.read_bytes()[:9])
    assert calls == ["memo", "keep"] * 2


def test_a_record_without_its_tables_counts_as_not_measured(suite: Path) -> None:
    plan, bench = planned(suite, "store")
    record = bench.measure(plan.cases[0])
    (bench.store.root / record.tables["latents"]).unlink()
    assert bench.store.record(record.id) is None


def test_an_input_that_fails_is_tried_once(suite: Path) -> None:
    x = torch.randn(100, 16)
    x[3, 3] = float("nan")
    write_acts(suite.parent / "acts.safetensors", x)
    plan, bench = planned(suite, "store")
    raised = []
    for case in plan.cases[:2]:
        with pytest.raises(CanonError, match=r"token 3 of .* is not finite") as caught:
            bench.measure(case)
        raised.append(caught.value)
    assert raised[0] is raised[1]
    assert "small.toml, [data.planted]" in str(raised[0])


def _keep(root: str) -> None:
    frame = pd.DataFrame({"x": range(1000)})
    for _ in range(50):
        Store(Path(root)).keep_table("case", "latents", lambda path: frame.to_parquet(path))


def test_two_processes_may_keep_one_table(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_keep, args=(str(tmp_path),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(pd.read_parquet(tmp_path / "tables/case/latents.parquet")) == 1000


def test_what_a_killed_owner_left_is_cleared(tmp_path: Path) -> None:
    store = Store(tmp_path)
    left = tmp_path / "artefacts" / ".thing"
    left.mkdir(parents=True)
    (left / "half").touch()
    store.artefact("thing", lambda folder: (folder / "x").touch(), title="a thing")
    assert [path.name for path in (tmp_path / "artefacts").iterdir()] == ["thing"]


def test_an_artefact_under_the_name_of_another_is_computed_anew(suite: Path) -> None:
    plan, bench = planned(suite, "store")
    first = measure(plan, bench)
    codes = sorted((bench.store.root / "artefacts").glob("*/codes.safetensors"))
    one, other = codes[0].parent, codes[1].parent
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)
    for path in (bench.store.root / "records").glob("*.json"):
        path.unlink()
    rerun = measure(*planned(suite, "store"))
    assert {key: record.scores for key, record in first.items()} == {
        key: record.scores for key, record in rerun.items()
    }
