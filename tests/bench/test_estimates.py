"""What `plan` says beforehand of time, memory and download: known sizes in, known lines out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planted import write_sae

from saebench_canon.bench import estimates
from saebench_canon.bench.estimates import Forecast, duration, estimate, lines, measured_speed
from saebench_canon.bench.measure import Bench
from saebench_canon.bench.measured_seconds import MeasuredSeconds
from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.sizes import sizes_of
from saebench_canon.bench.store import Store
from saebench_canon.cli import listings as commands
from saebench_canon.plugin.cost import Work
from saebench_canon.plugin.data import ModelSize
from saebench_canon.plugin.registry import Registry, load_registry
from saebench_canon.suite.load import packaged_suites

SPEED = 50e9
LADDER = """
[data.web]
model = "gpt2"
hook = "blocks.8.hook_resid_pre"
text = "someone/web-text"
tokens = 100_000
center = true

[[sae]]
name = "w{width}"
uri = "saelens://gpt2-small-res-jb-feature-splitting/blocks.8.hook_resid_pre_{width}"
data = "web"
axes = { width = [768, 1536] }

[[metric]]
name = "fidelity"

[[metric]]
name = "meta_sae"
"""


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Plan]:
    """The plan of a suite's text, far from any hub and with nothing in its cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))

    def make(text: str) -> Plan:
        (tmp_path / "made-up.toml").write_text(text)
        return make_plan(tmp_path / "made-up.toml", load_registry(), Store(tmp_path / ".canon"))

    return make


def of(plan: Plan) -> Forecast:
    return estimate(plan, load_registry(), speed=SPEED)


def page(plan: Plan, *, cores: int = 2, memory: int = 2**40) -> str:
    return "\n".join(lines(of(plan), cores=cores, memory=memory))


def test_a_ladder_on_the_hub_is_described_in_three_lines(planned: Callable[[str], Plan]) -> None:
    assert (
        page(planned(LADDER))
        == """\
time      about 12 min on 2 cores (-n 2), 20 min on one
          of it losses 12 min, meta_sae 4 min, activations 3 min
memory    about 3.3 GiB a worker; the L0 of w768, w1536 is not known and taken as d/16
download  about 536 MiB and the text someone/web-text, of unknown size"""
    )


def test_unknown_costs_are_left_out_and_named(planned: Callable[[str], Plan]) -> None:
    text = LADDER.replace('"gpt2"', '"someone/lm"').replace("tokens = 100_000\n", "")
    assert (
        page(planned(text), cores=1)
        == """\
time      not known
memory    not known
download  SAE w768, the model someone/lm and 2 more, of unknown size
left out  the size of SAE w768, the tokens of data web and 2 more: not known here"""
    )


def test_what_is_known_is_a_lower_bound(planned: Callable[[str], Plan]) -> None:
    shown = page(planned(LADDER.replace("tokens = 100_000\n", "")), cores=1)
    assert "time      at least " in shown
    assert "memory    at least" in shown
    assert "left out  the tokens of data web: not known here" in shown


def test_a_plan_that_exceeds_the_memory_says_so(planned: Callable[[str], Plan]) -> None:
    wide = LADDER.replace("[768, 1536]", "[98304]")
    shown = page(planned(wide), memory=8 * 2**30)
    assert "most of it for meta_sae of w98304; this machine has 8.0 GiB" in shown


def test_what_lies_in_the_cache_is_not_downloaded(
    planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    before = of(planned(LADDER))
    assert before.downloads == 3
    name = "models--jbloom--GPT2-Small-Feature-Splitting-Experiment-Layer-8"
    snapshot = tmp_path / "hub" / name / "snapshots" / "c0ffee"
    write_sae(snapshot / "blocks.8.hook_resid_pre_768", 768, d=768)
    (tmp_path / "hub" / name / "refs").mkdir()
    (tmp_path / "hub" / name / "refs" / "main").write_text("c0ffee")
    after = of(planned(LADDER))
    assert after.downloads == 2
    assert before.download - after.download == 2 * 4 * 768 * 768


def test_the_quickstart_takes_about_as_long_as_it_did() -> None:
    """5 minutes on the two quiet cores of 52e9 multiply-adds a second of its records."""
    plan = make_plan(packaged_suites()["quickstart"], load_registry(), Store(Path("no-store")))
    forecast = estimate(plan, load_registry(), speed=52e9)
    assert 300 / 3 < forecast.seconds(2) < 300 * 3
    assert forecast.download == forecast.downloads == 0
    assert not forecast.unknown
    assert not forecast.unsized


def test_a_measured_case_takes_no_more_time(suite: Path) -> None:
    registry, store = load_registry(), Store(suite.parent / "store")
    first = make_plan(suite, registry, store)
    before = estimate(first, registry, speed=SPEED)
    bench = Bench(registry, store)
    for case in first.cases:
        if case.label != "seed_matching":
            bench.measure(case)
    after = estimate(make_plan(suite, registry, store), registry, speed=SPEED)
    assert set(before.parts) == {
        "starting", "encoding", "fidelity", "stitching", "floor", "meta_sae", "seed_matching",
        "comparison", "insertion", "geometry",
    }  # fmt: skip
    assert set(after.parts) == {"starting", "seed_matching"}
    for case in first.cases:
        bench.measure(case, rerun=False)
    done = estimate(make_plan(suite, registry, store), registry, speed=SPEED)
    assert list(lines(done, cores=2)) == []


BREADTH = """
from saebench_canon import Score, hookimpl, metric
COST
@metric(of="sae", version=1, scores=[Score("breadth")])
def breadth(codes):
    \"\"\"Mean number of tokens of a latent.\"\"\"
    return {"breadth": float(codes.counts.double().mean())}


@hookimpl
def canon_metrics():
    return [breadth]
"""


@pytest.fixture
def brought(suite: Path) -> Callable[..., tuple[Plan, Registry]]:
    """The plan of a suite whose one metric comes from a plugin file, with a cost or without."""

    def make(cost: str = "", version: int = 1) -> tuple[Plan, Registry]:
        head = suite.read_text().split("[[metric]]")[0]
        (suite.parent / "only.toml").write_text(f'{head}[[metric]]\nname = "breadth"\n')
        text = BREADTH.replace("COST", cost).replace("version=1", f"version={version}")
        text = text.replace("scores=", "cost=cost, scores=") if cost else text
        (suite.parent / "breadth.py").write_text(text)
        registry = load_registry([suite.parent / "breadth.py"])
        return make_plan(suite.parent / "only.toml", registry, Store(suite.parent / "s")), registry

    return make


def test_a_plugins_metric_says_its_own_cost(
    brought: Callable[..., tuple[Plan, Registry]],
) -> None:
    cost = """
from saebench_canon.plugin.cost import Cost, Work
def cost(size):
    (sae,) = size.saes
    return Cost(Work(products=size.tokens * sae.width, fixed=2.0), memory=2**50)
"""
    plan, registry = brought(cost)
    forecast = estimate(plan, registry, speed=1e9)
    tokens = sizes_of(plan.suite)[0]["planted"].scored
    widths = [case.subject[0].axes["width"] for case in plan.cases]
    assert tokens
    assert forecast.parts["breadth"] == pytest.approx(
        sum(2.0 + tokens * width / 1e9 for width in widths)
    )
    assert forecast.largest.startswith("breadth of ")
    assert not forecast.unknown
    assert not forecast.earlier


def test_a_metric_that_says_no_cost_is_left_out_until_it_has_records(
    brought: Callable[..., tuple[Plan, Registry]],
) -> None:
    plan, registry = brought()
    assert estimate(plan, registry, speed=SPEED).unknown == ("the metric breadth",)
    seconds = (2.0, 4.0)
    for case, taken in zip(plan.cases, seconds, strict=False):
        record = Bench(registry, plan.store).measure(case)
        provenance = {**record.provenance, "seconds": taken}
        plan.store.keep_record(replace(record, provenance=provenance))
    forecast = estimate(plan, registry, speed=SPEED)
    assert not forecast.unknown
    assert forecast.earlier == (MeasuredSeconds("breadth", 3.0, 2),)
    assert forecast.parts["breadth"] == pytest.approx(3.0 * (len(plan.cases) - 2))
    assert list(lines(forecast, cores=1))[-1] == (
        "records   breadth: 3 s a case, the mean of 2 earlier records, whatever its size"
    )
    plan, registry = brought(version=2)
    assert estimate(plan, registry, speed=SPEED).unknown == ("the metric breadth",)


def test_a_cost_that_fails_is_left_out_with_its_reason(
    brought: Callable[..., tuple[Plan, Registry]],
) -> None:
    plan, registry = brought("\ndef cost(size):\n    return size.settings['nothing']\n")
    shown = "\n".join(lines(estimate(plan, registry, speed=SPEED), cores=1))
    assert "left out  the metric breadth (its cost fails, KeyError: 'nothing')" in shown


def test_no_data_takes_no_activations(suite: Path) -> None:
    suite.write_text(suite.read_text().replace('data = "planted"\n', ""))
    registry = load_registry()
    plan = make_plan(suite, registry, Store(suite.parent / "store"))
    forecast = estimate(plan, registry, speed=SPEED)
    assert "encoding" not in forecast.parts
    assert forecast.parts["meta_sae"] > 0


def test_an_sae_has_the_width_of_the_others_on_its_data(planned: Callable[[str], Plan]) -> None:
    _, saes = sizes_of(planned(LADDER).suite)
    assert {(name, sae.d, sae.width) for name, sae in saes.items()} == {
        ("w768", 768, 768), ("w1536", 768, 1536),
    }  # fmt: skip
    assert saes["w1536"].download == 2 * 4 * 768 * 1536


def test_a_models_size_is_counted_from_its_configuration() -> None:
    plan = make_plan(packaged_suites()["quickstart"], load_registry(), Store(Path("no-store")))
    data = plan.suite.data["docs"]
    model = data.source.size(data).model
    assert model is not None
    weights = Path(estimates.__file__).parents[1] / "packaged" / "tiny-lm" / "model.safetensors"
    assert model.parameters == pytest.approx(weights.stat().st_size / 4, rel=0.01)
    assert model == ModelSize(128, 6, 2048, model.parameters)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "1 s"), (8.6, "9 s"), (44, "40 s"), (90, "2 min"), (1790, "30 min"),
     (5400, "1.5 h"), (40 * 3600, "40 h"), (72 * 3600, "3 days")],
)  # fmt: skip
def test_durations_have_few_digits(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_work_adds_up() -> None:
    work = Work(2e9, 1.0) + Work(1e9).times(2)
    assert work.seconds(1e9) == 5.0


def test_this_machine_has_a_speed() -> None:
    assert 1e8 < measured_speed() < 1e13


def test_plan_prints_the_lines(
    suite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from argparse import Namespace

    monkeypatch.setattr(estimates, "measured_speed", lambda: SPEED)
    monkeypatch.setattr(estimates, "cores", lambda: 2)
    options: dict[str, Any] = {
        "suite": str(suite), "plugin": [], "store": "store", "settings": [], "limit": None,
        "dtype": None, "json": False,
    }  # fmt: skip
    commands.plan(Namespace(**options))
    shown = capsys.readouterr().out
    assert "\nRough estimate for measuring them:\n  time      about " in shown
    assert shown.endswith("  download  none\n")


def test_workers_cannot_share_one_case(planned: Callable[[str], Plan]) -> None:
    forecast = of(planned(LADDER))
    assert forecast.longest > 0
    many = forecast.seconds(1000)
    assert many == pytest.approx(forecast.unshared + forecast.longest)
    assert forecast.seconds(2) > (forecast.seconds(1) - forecast.unshared) / 2
