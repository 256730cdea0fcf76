"""The path in the model's loss: its ends are fidelity's, its order stitching's, points exact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import brute_force
import pandas as pd
import pytest
import torch
from planted import write_sae
from tiny_models import WIDTH, tiny

from saebench_canon.bench.estimates import estimate
from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.inputs.spliced_loss import Losses
from saebench_canon.metrics.stitching.interpolation import Graph, random_order, steps_of
from saebench_canon.metrics.stitching_loss.metric import (
    evenly,
    latents_after,
    stitched,
    stitching_loss,
)
from saebench_canon.plugin.metric import Measurement, Undefined
from saebench_canon.plugin.record import Record
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.saes.fold import fold

SUITE = """
[data.letters]
model = "tiny-gpt2"
hook = "blocks.1.hook_resid_post"
text = "letters.jsonl"
context = 16
loss_tokens = 120
{data}

[[sae]]
name = "w{{width}}"
uri = "file:w{{width}}"
data = "letters"
axes.width = [12, 20]

[[metric]]
name = "fidelity"

[[metric]]
name = "stitching"
settings = {{ threshold = 0.3, orders = 1, orderings = ["random"] }}

[[metric]]
name = "stitching_loss"
settings = {{ threshold = 0.3, points = 5 }}
"""


def measured(folder: Path, data: str = "", **config: Any) -> tuple[Plan, Bench, dict[str, Record]]:
    """Every record of a suite of two SAEs on a tiny model, by the case's name."""
    lm = tiny("gpt2")
    lm.model.save_pretrained(folder / "tiny-gpt2")
    lm.tokenizer.save_pretrained(folder / "tiny-gpt2")
    words = ["the quick brown fox jumps", "over the lazy dog", "abcdefghijklmnopqrstuvwxyz"]
    lines = [
        json.dumps({"text": f"{word} {repeats * word}"[:60]})
        for repeats in range(4)
        for word in words
    ]
    (folder / "letters.jsonl").write_text("\n".join(lines))
    for width in (12, 20):
        write_sae(folder / f"w{width}", width, d=WIDTH)
        config_file = json.loads((folder / f"w{width}" / "cfg.json").read_text())
        (folder / f"w{width}" / "cfg.json").write_text(json.dumps(config_file | config))
    (folder / "suite.toml").write_text(SUITE.format(data=data))
    registry, store = load_registry(), Store(folder / "store")
    plan, bench = make_plan(folder / "suite.toml", registry, store), Bench(registry, store)
    return plan, bench, {str(case): bench.measure(case) for case in plan.cases}


def table(bench: Bench, record: Record, name: str) -> pd.DataFrame:
    return pd.read_parquet(bench.store.root / record.tables[name])


@pytest.mark.parametrize(
    ("data", "config"),
    [("", {}), ("center = true", {}), ("", {"normalize_activations": "layer_norm"})],
    ids=["plain", "centred", "normalised"],
)
def test_the_ends_are_fidelitys_and_the_order_is_stitchings(
    tmp_path: Path, data: str, config: dict[str, Any]
) -> None:
    plan, bench, records = measured(tmp_path, data, **config)
    record = records["w12+w20 stitching_loss"]
    path = table(bench, record, "path")
    ends = [path.iloc[0], path.iloc[-1]]
    for name, score, end in zip(("w12", "w20"), ("small_loss", "large_loss"), ends, strict=True):
        losses = table(bench, records[f"{name} fidelity"], "losses").set_index("model")
        assert end.loss == record.scores[score]["value"] == losses.loc["sae", "cross_entropy"]
        assert record.scores[score]["stderr"] == losses.loc["sae", "stderr"] > 0
        recovered = records[f"{name} fidelity"].scores["loss_recovered"]["value"]
        if recovered is None:
            assert path.loss_recovered.isna().all()
        else:
            assert end.loss_recovered == recovered

    full_path = table(bench, records["w12+w20 stitching"], "path").set_index("step")
    assert path.step.tolist()[0] == 0
    assert path.step.tolist()[-1] == full_path.index[-1]
    assert (path.phase == full_path.loc[path.step, "phase"].to_numpy()).all()
    case = next(case for case in plan.cases if case.metric.name == "stitching_loss")
    small, large = (bench.artifacts.sae(sae, case.data) for sae in case.subject)
    live = bench.artifacts.input("codes", case.data, case.subject[0]).live
    loss_with = bench.artifacts.input("loss_with", case.data)
    count = bench.artifacts.input("baseline", case.data).count.sum()
    rows = full_path.loc[:, ["latents_in", "latents_out"]]
    for point in path.itertuples():  # the ends too, though the metric takes them from `loss`
        remaining, added = live.clone(), torch.zeros(large.width, dtype=torch.bool)
        for step in rows.loc[1 : point.step].itertuples():
            remaining[list(step.latents_out)] = False
            added[list(step.latents_in)] = True
        dense = plain(small, large, remaining, added)
        assert float(loss_with(dense).sum() / count) == pytest.approx(point.loss, abs=2e-5)
        ours = stitched(small, large, remaining, added)
        assert float(loss_with(ours).sum() / count) == pytest.approx(point.loss, abs=2e-5)


def plain(small: CanonicalSAE, large: CanonicalSAE, remaining: Any, added: Any) -> Any:
    """Eq. 5 as it stands, in float64."""
    alpha = int(remaining.sum()) / (int(remaining.sum()) + int(added.sum()))

    def reconstruct(x: torch.Tensor) -> torch.Tensor:
        out = alpha * small.b_dec.double() + (1 - alpha) * large.b_dec.double()
        for sae, chosen in ((small, remaining), (large, added)):
            out = out + (sae.encode(x) * chosen).double() @ sae.W_dec.double()
        return out.to(x)

    return reconstruct


def test_the_gain_is_read_where_all_novel_latents_are_in(tmp_path: Path) -> None:
    _, bench, records = measured(tmp_path)
    path = table(bench, records["w12+w20 stitching_loss"], "path")
    full_path = table(bench, records["w12+w20 stitching"], "path")
    assert (full_path.phase == "novel").sum() in path.step.tolist()
    assert len(path) in (5, 6)


def test_the_gain_is_a_ratio_of_totals_with_an_error_over_documents() -> None:
    small, novel = by_hand(2.0), by_hand(1.5)
    novel.ce_sae[0] += 3
    gain = scores(small, novel)["loss_gain"]
    quotient, error = brute_force.ratio_by_documents(
        (novel.ce_sae - small.ce_clean).tolist(), (small.ce_sae - small.ce_clean).tolist()
    )
    assert (gain.value, gain.stderr) == pytest.approx((1 - quotient, error))
    assert (gain.n, gain.unit) == (5, "document")


def test_each_point_counts_as_a_pass_of_the_model_in_the_estimate(tmp_path: Path) -> None:
    measured(tmp_path)
    registry, fresh = load_registry(), Store(tmp_path / "fresh")
    seconds = []
    for points in (3, 5):
        plan = make_plan(
            tmp_path / "suite.toml", registry, fresh,
            settings=[f"metric.stitching_loss.settings.points={points}"],
        )  # fmt: skip
        estimated = estimate(plan, registry, speed=1e6)
        assert estimated.unknown == ()
        seconds.append(estimated.parts["stitching_loss"] - 0.1)
    assert seconds[1] == pytest.approx(2 * seconds[0], rel=0.05)


def test_points_are_spread_evenly_and_no_step_is_taken_twice() -> None:
    assert evenly(8, 3) == [0, 4, 8]
    assert evenly(100, 9) == [0, 12, 25, 38, 50, 62, 75, 88, 100]
    assert evenly(2, 9) == [0, 1, 2]
    assert evenly(1, 2) == [0, 1]


def test_latents_after_the_last_step_are_the_large_ones() -> None:
    graph = Graph(novel=(4, 1), orphans=(2,), components=(((0,), (0, 2)), ((3,), (5,))))
    steps = steps_of(graph, *random_order(graph, 3, 0))
    live = torch.tensor([True, False, True, True])
    remaining, added = latents_after(live, steps, 6)
    assert not remaining.any()
    assert added.nonzero()[:, 0].tolist() == [0, 1, 2, 4, 5]
    remaining, added = latents_after(live, steps[:2], 6)
    assert remaining.tolist() == live.tolist()
    assert added.nonzero()[:, 0].tolist() == [1, 4]


def by_hand(sae: float, clean: float = 1.0, documents: int = 5, jitter: float = 0.0) -> Losses:
    count = torch.full((documents,), 10)
    noise = jitter * (torch.arange(documents) % 2 * 2.0 - 1)
    ones = torch.ones(documents, dtype=torch.float64) * 10
    return Losses(clean * ones, sae * ones + noise * 10, 4 * ones, 3 * ones, count)


def one_sae(width: int, bias: float = 0.0) -> CanonicalSAE:
    rows = torch.eye(4)[:width]
    b_enc = torch.full((width,), bias)
    return fold(W_enc=rows.T.clone(), W_dec=rows, b_dec=torch.zeros(4), b_enc=b_enc)


def scores(small: Losses, large: Losses, *, bias: float = 0.0) -> Mapping[str, Any]:
    saes = one_sae(2, bias), one_sae(4)
    codes = [sae.encode_sparse(torch.rand(6, 4) + 0.1) for sae in saes]

    class Model:
        device = torch.device("cpu")

    measurement = stitching_loss.measure(
        *saes, *codes, Model(), lambda reconstruct: large.ce_sae, small, large, 0
    )
    assert isinstance(measurement, Measurement)
    return measurement.scores


def test_a_gain_has_no_meaning_where_the_small_sae_costs_nothing() -> None:
    assert scores(by_hand(2.0), by_hand(1.5))["loss_gain"].value == pytest.approx(0.5)
    noisy = scores(by_hand(1.1, jitter=0.5), by_hand(1.0))["loss_gain"]
    assert isinstance(noisy, Undefined)
    assert "no loss beyond noise" in noisy.reason
    none = by_hand(2.0)
    none.count.zero_()
    assert all(isinstance(score, Undefined) for score in scores(none, none).values())


def test_without_live_latents_both_losses_stay(tmp_path: Path) -> None:
    measured = scores(by_hand(2.0), by_hand(1.5), bias=-9.0)
    assert measured["small_loss"].value == 2
    assert measured["large_loss"].value == 1.5
    assert isinstance(measured["loss_gain"], Undefined)


@pytest.mark.parametrize(("setting", "value"), [("threshold", 1.5), ("points", 1)])
def test_settings_out_of_range_are_sentences(setting: str, value: float) -> None:
    with pytest.raises(CanonError, match=f"stitching_loss: {setting} must be .*, got {value}"):
        stitching_loss.measure(*[None] * 9, **{setting: value})


def test_activations_of_a_file_lack_a_model(suite: Path) -> None:
    suite.write_text(
        suite.read_text().partition("[[metric]]")[0] + '[[metric]]\nname = "stitching_loss"'
    )
    registry, store = load_registry(), Store(Path("store"))
    plan, bench = make_plan(suite, registry, store), Bench(registry, store)
    reason = bench.measure(plan.cases[0]).scores["loss_gain"]["reason"]
    assert reason == "needs 'lm', which data without a language model does not give"
