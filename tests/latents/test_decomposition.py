"""What records say a latent is made of, from records written by hand; a past run's plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from planted import SUITE, write_sae
from sealed import EMPTY, keep_made_up, made_up_id

from saebench_canon.bench.identity import Identities
from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.rerun import plan_of_run
from saebench_canon.bench.results import keep_run, last_run
from saebench_canon.bench.store import Store
from saebench_canon.cli.main import main
from saebench_canon.errors import CanonError
from saebench_canon.latents.decomposition import Records
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.row import ListedCase


def keep(
    store: Store,
    case: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame] | None = None,
    **scores: float | None,
) -> None:
    """Keep a record of a case with these tables and scores."""
    record = replace(EMPTY, metric=case["metric"], seed=case["seed"])
    keep_made_up(store, record, tables, **scores)


def case(number: int, metric: str, *subject: str, over: str = "each") -> dict[str, Any]:
    return {"id": made_up_id(metric, number), "metric": metric, "label": metric, "seed": number,
            "subject": [*subject], "over": over}  # fmt: skip


def records(cases: list[dict[str, Any]], store: Store) -> Records:
    listed = [ListedCase.from_json(case) for case in cases]
    return Records(listed, store, load_registry().metrics.values())


def decomposed(latents: int = 20) -> dict[str, pd.DataFrame]:
    """Latent n has meta-latent 0 with weight 1 − n/100, and latent 2 has meta-latent 1 as well."""
    number = [*range(latents), 2]
    weight = [1 - rank / 100 for rank in range(latents)] + [0.99]
    meta = [0] * latents + [1]
    return {
        "decomposition": pd.DataFrame({"latent": number, "meta_latent": meta, "weight": weight}),
        "latents": pd.DataFrame({"latent": range(latents), "explained": 0.5}),
        "meta_latents": pd.DataFrame({"meta_latent": range(3), "latents": [latents, 1, 0]}),
    }


def test_a_latent_and_a_meta_latent_list_each_other_heaviest_first(tmp_path: Path) -> None:
    store, cases = Store(tmp_path), [case(1, "meta_sae", "it")]
    keep(store, cases[0], decomposed())
    meta = records(cases, store).meta_latents("it")
    assert list(meta.of_latent(2).items()) == [(1, 0.99), (0, 0.98)]
    assert [*meta.of_meta_latent(0)] == [*range(20)]
    assert (meta.explained(2), meta.explained(77)) == (0.5, None)
    assert meta.of_latent(77) == {}


def test_the_first_measured_case_of_a_metric_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cases = [case(1, "meta_sae", "it"), case(2, "meta_sae", "it") | {"label": "other"}]
    keep(store, cases[1], decomposed())
    assert records(cases, store).meta_latents("it").label == "other"
    keep(store, cases[0], decomposed())
    assert records(cases, store).meta_latents("it").label == "meta_sae"


def test_a_sum_is_of_the_pair_and_the_latent_that_are_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cases = [case(1, "composition", "s", "m"), case(2, "composition", "m", "l")]
    table = {"latent": [4, 4, 5], "atom": [7, 9, 8], "weight": [0.5, 0.25, 1.0]}
    keep(store, cases[1], {"latents": pd.DataFrame({**table, "explained": [0.5, 0.75, 1.0]})})
    assert records(cases, store).sum_of("m", "l", 4).atoms == ((7, 0.5, 0.5), (9, 0.25, 0.75))
    assert records(cases, store).sum_of("m", "l", 6).atoms == ()
    with pytest.raises(CanonError, match="composition of s and m is not measured"):
        records(cases, store).sum_of("s", "m", 4)
    store.keep_error(cases[0]["id"], {"case": "", "error": "a code is not finite"})
    with pytest.raises(CanonError, match=r"composition of s and m failed\. `show --errors` says"):
        records(cases, store).sum_of("s", "m", 4)
    with pytest.raises(CanonError, match="the suite has no composition of s and l"):
        records(cases, store).sum_of("s", "l", 4)


def test_the_floor_is_the_mean_over_the_saes_own_pairs_of_seeds(tmp_path: Path) -> None:
    store, seeds = Store(tmp_path), "all-pairs:seed"
    cases = [
        case(1, "composition", "s0", "l0", over="pairs:width"),
        case(2, "composition", "l0", "l1", over=seeds),
        case(3, "composition", "l2", "l0", over=seeds),
        case(4, "composition", "l1", "l2", over=seeds),
        case(5, "composition", "l0", "l3", over=seeds),
        case(6, "stitching", "l0", "l1", over=seeds),
        case(7, "composition", "l0", "l4", over=seeds),
    ]
    for number, share in ((0, 0.9), (1, 0.1), (2, 0.2), (3, 0.8), (6, None)):
        keep(store, cases[number], composed_share=share)
    keep(store, cases[5], novel_share=0.7)
    assert records(cases, store).floor("l0") == pytest.approx(0.15)
    assert records(cases, store).floor("s0") is None


@pytest.fixture
def planned(suite: Path) -> Store:
    """A store with a run of the small suite of which only the meta-SAE of w48-s0 was measured."""
    suite.write_text(SUITE)
    registry, store = load_registry(), Store(Path(".canon"))
    plan, identities = make_plan(suite, registry, store), Identities(registry, store)
    keep_run(plan, name="small.toml", flags={})
    for planned_case in plan.cases:
        if planned_case.metric.name == "meta_sae" and planned_case.name == "relu-w48-s0":
            (sae,) = planned_case.subject
            digest = identities.sae(sae, planned_case.data)
            record = replace(
                EMPTY, metric="meta_sae", version=planned_case.metric.version,
                settings=dict(planned_case.settings), seed=planned_case.seed,
                subject=({"ref": "file:saes/w48-s0", "digest": digest},),
                identity=identities.facts(planned_case),
            )  # fmt: skip
            keep_made_up(store, record, decomposed(), explained_variance=0.6, null_covariance=0.61)
    return store


def test_a_record_of_another_sae_under_the_same_name_is_refused(
    planned: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sae(Path("saes/w48-s0"), 48, seed=99)
    assert main(["show", "small", "--latent", "relu-w48-s0:2"]) == 4
    assert "'relu-w48-s0' or its data has changed since the last run of" in capsys.readouterr().err


def test_a_meta_latent_lists_its_heaviest_and_counts_the_others(
    planned: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "small", "--meta-latent", "relu-w48-s0:0"]) == 0
    page = capsys.readouterr().out
    assert "used by 20 of 20 latents" in page
    assert [line.split()[:3] for line in page.splitlines() if line.endswith("  –")] == [
        [f"{1 - rank / 100:.2f}".lstrip("0"), str(rank), ".50"] for rank in range(12)
    ]
    assert "… and 8 lighter" in page
    assert "No more than chance: meta-latents explain .60" in page
    assert main(["show", "small", "--meta-latent", "relu-w48-s0:2"]) == 4
    assert "meta-latent 2 of relu-w48-s0 is dead: no latent uses it" in capsys.readouterr().err


def test_the_plan_of_a_run_has_the_settings_it_ran_with(suite: Path) -> None:
    registry, store = load_registry(), Store(Path(".canon"))
    settings = ["sae.axes.seed=[0]"]
    flags = {"settings": settings, "limit": 100, "dtype": "float64"}
    plan = make_plan(suite, registry, store, settings=settings, limit=100, dtype="float64")
    keep_run(plan, name="small.toml", flags=flags)
    plan_again = plan_of_run(last_run(store, None), registry, store)
    assert plan_again.ids == plan.ids
    assert plan_again.ids != make_plan(suite, registry, store).ids
    assert [data.tokens for data in plan_again.suite.data.values()] == [100]
    assert {sae.dtype for sae in plan_again.suite.saes} == {"float64"}
    assert {sae.axes["seed"] for sae in plan_again.suite.saes} == {0}


def test_a_packaged_suite_is_found_where_the_package_is_now() -> None:
    registry, store = load_registry(), Store(Path("nowhere"))
    run = {"called": "quickstart", "path": "/gone/quickstart.toml", "flags": {}}
    assert plan_of_run(run, registry, store).suite.name == "quickstart"
