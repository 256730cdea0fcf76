"""A batch's selection gets a threshold for single tokens on the suite's data, and says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import D, planted_acts, write_acts
from torch import Tensor

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.record import Record
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.saes.calibration import BATCH, BATCHES, calibrate, least_selected
from saebench_canon.saes.fold import fold


def tokens(x: Tensor) -> Acts:
    return Acts(x, torch.arange(len(x)))


def random_sae(
    *, m: int = 24, d: int = D, k: float = 3, dtype: torch.dtype = torch.float64, **options: Any
) -> CanonicalSAE:
    """A BatchTopK SAE without a threshold, rows not of unit norm."""
    g = torch.Generator().manual_seed(1)
    raw = {
        "W_enc": torch.randn(d, m, generator=g, dtype=torch.float64),
        "b_enc": 0.5 * torch.randn(m, generator=g, dtype=torch.float64),
        "W_dec": 2 * torch.randn(m, d, generator=g, dtype=torch.float64),
        "b_dec": torch.randn(d, generator=g, dtype=torch.float64),
    }
    return fold(**raw, activation="batchtopk", k=k, **options).to(dtype=dtype)


def brute_force(pre: np.ndarray, k: float) -> float | None:
    """Eq. 8 for one batch: sort everything, keep the n·k largest, take the least positive one."""
    largest = np.sort(pre.ravel())[::-1][: int(k * len(pre))]
    positive = largest[largest > 0]
    return float(positive.min()) if len(positive) else None


def pre_activations(sae: CanonicalSAE, x: Tensor) -> np.ndarray:
    """What stands inside the activation, in float64."""
    coder = sae.coder
    assert isinstance(coder, LinearEncoder)
    shift = 0 if coder.shift is None else coder.shift.double()
    pre: np.ndarray = ((x - shift) @ coder.weights.double() + coder.bias.double()).numpy()
    return pre


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 40),
    k=st.sampled_from([0.5, 1, 2.5, 4, 24]),
    chunk=st.sampled_from([1, 100, 2**24]),
)
@settings(max_examples=60, deadline=None)
def test_the_least_of_a_batch_is_brute_forces(seed: int, n: int, k: float, chunk: int) -> None:
    sae = random_sae(k=k)
    assert isinstance(sae.coder, LinearEncoder)
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saebench_canon.saes.calibration.CHUNK", chunk)
        least = least_selected(sae.coder, x)
    expected = brute_force(pre_activations(sae, x), k)
    assert least == (None if expected is None else pytest.approx(expected, rel=1e-12))


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("on_input", [False, True])
def test_the_threshold_is_the_mean_over_the_batches(rescale: bool, on_input: bool) -> None:
    sae = random_sae(rescale=rescale, apply_b_dec_to_input=on_input)
    x = torch.randn(5 * BATCH + 10, D, generator=torch.Generator().manual_seed(2)).double()
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[: 5 * BATCH]
    pre = pre_activations(sae, x)
    least = [brute_force(pre[part.numpy()], 3) for part in chosen.split(BATCH)]
    calibration = calibrate(sae, tokens(x)).calibration
    assert calibration is not None
    assert calibration.threshold == pytest.approx(np.mean(least), rel=1e-12)
    assert (calibration.k, calibration.tokens, calibration.batches) == (3, 5 * BATCH, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_codes_are_those_above_the_threshold(dtype: torch.dtype) -> None:
    sae = random_sae(dtype=dtype)
    x = planted_acts(3000).to(dtype)
    known = calibrate(sae, tokens(x))
    assert known.calibration is not None
    assert known.W_dec.dtype == dtype
    level = torch.tensor(known.calibration.threshold, dtype=dtype)
    assert isinstance(sae.coder, LinearEncoder)
    pre = sae.coder.pre(x)
    codes = torch.where(pre > level, pre, 0) * sae.coder.scale
    assert torch.equal(known.encode(x), codes)
    assert torch.equal(known.encode_sparse(x).dense(), codes)


def planted(k: int, n: int = 8192, m: int = 64) -> tuple[CanonicalSAE, Acts]:
    """Tokens that are sums of k of m orthogonal directions on average, and the SAE of these."""
    g = torch.Generator().manual_seed(k)
    active = torch.rand(n, m, generator=g) < k / m
    codes = active * (1 + torch.rand(n, m, generator=g))
    noise = 0.05 * torch.randn(n, m, generator=g)
    eye = torch.eye(m)
    sae = fold(W_enc=eye, W_dec=eye, b_dec=torch.zeros(m), activation="batchtopk", k=k)
    return sae, tokens(codes + noise)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [2, 8, 20])
def test_where_k_codes_are_planted_l0_becomes_k(k: int, dtype: torch.dtype) -> None:
    sae, acts = planted(k)
    known = calibrate(sae.to(dtype=dtype), acts)
    assert known.encode_sparse(acts.x).l0 == pytest.approx(k, rel=0.03)


def test_random_data_too_have_an_l0_of_k_after_calibration() -> None:
    sae = random_sae(k=3.5, dtype=torch.float32)
    x = torch.randn(20_000, D, generator=torch.Generator().manual_seed(4))
    assert calibrate(sae, tokens(x)).encode_sparse(x).l0 == pytest.approx(3.5, rel=0.02)


def test_ties_at_the_threshold_are_off_at_inference() -> None:
    eye = torch.eye(4)
    sae = fold(W_enc=eye, W_dec=eye, b_dec=torch.zeros(4), activation="batchtopk", k=1)
    x = torch.tensor([[2.0, 1, 1, 0], [3.0, 1, 0, 1]])  # two largest: 3 and 2
    assert calibrate(sae, tokens(x)).encode(x).tolist() == [[0, 0, 0, 0], [3, 0, 0, 0]]
    known = calibrate(replace(sae, coder=replace(sae.coder, k=2)), tokens(x))  # 3, 2 and two ones
    assert known.calibration is not None
    assert known.calibration.threshold == 1
    assert known.encode(x).tolist() == [[2, 0, 0, 0], [3, 0, 0, 0]]


def test_more_to_select_than_positives_gives_the_least_positive() -> None:
    eye = torch.eye(4)
    sae = fold(W_enc=eye, W_dec=eye, b_dec=torch.zeros(4), activation="batchtopk", k=4)
    x = torch.tensor([[2.0, -1, 0.25, 0], [3.0, -1, 0, 1]])
    known = calibrate(sae, tokens(x))
    assert known.calibration is not None
    assert known.calibration.threshold == 0.25


def test_without_a_positive_pre_activation_there_is_no_threshold() -> None:
    eye = torch.eye(4)
    sae = fold(W_enc=eye, W_dec=eye, b_dec=torch.zeros(4), activation="batchtopk", k=2)
    with pytest.raises(CanonError, match="no latent is active"):
        calibrate(sae, tokens(-torch.ones(3, 4)))
    with pytest.raises(CanonError, match="width 4, but these have width 5"):
        calibrate(sae, tokens(torch.ones(3, 5)))


def test_it_is_the_same_at_every_call_and_leaves_the_global_generator_alone() -> None:
    sae, acts = random_sae(), tokens(planted_acts(3000).double())
    before = torch.get_rng_state()
    first, second = calibrate(sae, acts), calibrate(sae, acts)
    assert first.calibration == second.calibration
    assert torch.equal(before, torch.get_rng_state())


def test_an_sae_with_a_threshold_is_left_as_it_is() -> None:
    sae, acts = random_sae(), tokens(planted_acts(100).double())
    known = calibrate(sae, acts)
    assert calibrate(known, acts) is known
    eye = torch.eye(4)
    relu = fold(W_enc=eye, W_dec=eye, b_dec=torch.zeros(4))
    assert calibrate(relu, acts) is relu


def test_a_bounded_number_of_pre_activations_is_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts: list[int] = []
    pre = LinearEncoder.pre

    def counting(coder: LinearEncoder, x: Tensor) -> Tensor:
        values = pre(coder, x)
        counts.append(values.numel())
        return values

    monkeypatch.setattr("saebench_canon.saes.calibration.CHUNK", 480)
    monkeypatch.setattr(LinearEncoder, "pre", counting)
    calibration = calibrate(
        random_sae(), tokens(planted_acts(BATCH * (BATCHES + 1)).double())
    ).calibration
    assert calibration is not None
    assert calibration.batches == BATCHES
    assert max(counts) == 480  # 20 tokens of 24 latents
    assert sum(counts) == BATCHES * BATCH * 24


PLUGIN = '''
"""BatchTopK SAEs that store no threshold."""

from saebench_canon import hookimpl
from saebench_canon.saes.checkpoint import Parameters, checkpoint


@checkpoint("made-up", files=["made_up.safetensors"], calibrates=True)
def made_up(files):
    w = files.safetensors("made_up.safetensors")
    return Parameters(
        W_enc=w["W_enc"], b_enc=w["b_enc"], W_dec=w["W_dec"], b_dec=w["b_dec"],
        activation="batchtopk", k=3,
    )


@hookimpl
def canon_adapters():
    return [made_up]
'''

TABLES = """
[suite]
name = "uncalibrated"

{data}

[[sae]]
name = "w{{width}}"
uri = "made-up:saes/w{{width}}"
{named}
axes = {{ width = [24, 48] }}

[[metric]]
name = "fidelity"

[[metric]]
name = "stitching"

[[metric]]
name = "meta_sae"
settings = {{ steps = 20, batch = 64, k = 2 }}
"""


@pytest.fixture
def uncalibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two SAEs that lack a threshold, two data sets, and the format's plugin."""
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    (tmp_path / "made_up.py").write_text(PLUGIN)
    write_acts(tmp_path / "acts.safetensors")
    write_acts(tmp_path / "other.safetensors", planted_acts(700, seed=1))
    for width in (24, 48):
        g = torch.Generator().manual_seed(width)
        rows = torch.randn(width, D, generator=g)
        folder = tmp_path / "saes" / f"w{width}"
        folder.mkdir(parents=True)
        weights = {
            "W_enc": rows.T.contiguous(), "b_enc": torch.zeros(width), "W_dec": rows,
            "b_dec": torch.zeros(D),
        }  # fmt: skip
        save_file(weights, folder / "made_up.safetensors")
    return tmp_path


def planned(folder: Path, file: str | None) -> tuple[Plan, Bench]:
    data = "" if file is None else f'[data.planted]\nfile = "{file}"\n'
    named = "" if file is None else 'data = "planted"'
    (folder / "suite.toml").write_text(TABLES.format(data=data, named=named))
    registry, store = load_registry([folder / "made_up.py"]), Store(folder / "store")
    return make_plan(folder / "suite.toml", registry, store), Bench(registry, store)


def measured(folder: Path, file: str | None) -> dict[str, Record]:
    plan, bench = planned(folder, file)
    return {str(case): bench.measure(case) for case in plan.cases}


def test_the_record_tells_threshold_and_tokens(uncalibrated: Path) -> None:
    records = measured(uncalibrated, "acts.safetensors")
    for record in records.values():
        calibrated = record.provenance["calibrated"]
        assert {sae["digest"] for sae in record.subject} == set(calibrated)
        for calibration in calibrated.values():
            assert calibration["threshold"] > 0
            assert (calibration["k"], calibration["tokens"], calibration["batches"]) == (3, 600, 1)
        notes = [mark["reason"] for mark in record.marks if mark["kind"] == "note"]
        assert "no threshold in its checkpoint: calibrated on 600 tokens (eq. 8)" in notes
    fidelity = next(record for record in records.values() if record.metric == "fidelity")
    assert fidelity.scores["l0"]["value"] == pytest.approx(3, abs=0.05)


def test_without_data_decoders_are_measured_and_the_rest_says_what_it_lacks(
    uncalibrated: Path,
) -> None:
    for record in measured(uncalibrated, None).values():
        assert record.provenance["calibrated"] == {}
        reasons = {name: score.get("reason") for name, score in record.scores.items()}
        if record.metric == "fidelity":
            assert set(reasons.values()) == {"needs activations, and the SAE has no data"}
        elif record.metric == "meta_sae":
            assert set(reasons.values()) == {None}
        else:
            share = {
                "stitching": "novel_share", "comparison": "found_share",
                "geometry": "own_sum_share",
            }[record.metric]  # fmt: skip
            assert reasons[share] is None


def test_other_data_are_another_sae_and_the_same_data_the_same(uncalibrated: Path) -> None:
    first, _ = planned(uncalibrated, "acts.safetensors")
    replanned, _ = planned(uncalibrated, "acts.safetensors")
    other_data, _ = planned(uncalibrated, "other.safetensors")
    no_data, _ = planned(uncalibrated, None)
    assert list(first.ids) == list(replanned.ids)
    for plan, other_plan in ((first, other_data), (first, no_data), (other_data, no_data)):
        assert not set(plan.ids) & set(other_plan.ids)
    before = json.dumps(sorted(first.ids))
    (uncalibrated / "saes").rename(uncalibrated / "elsewhere")
    (uncalibrated / "saes").symlink_to(uncalibrated / "elsewhere")
    moved, _ = planned(uncalibrated, "acts.safetensors")
    assert json.dumps(sorted(moved.ids)) == before  # the content counts, not the place


def test_thresholds_come_from_activations_that_are_not_scored(uncalibrated: Path) -> None:
    planned(uncalibrated, "acts.safetensors")  # writes the suite
    suite = uncalibrated / "suite.toml"
    text = suite.read_text().replace('"acts.safetensors"', '"acts.safetensors"\nholdout = 0.25')
    suite.write_text(text)
    registry, store = load_registry([uncalibrated / "made_up.py"]), Store(uncalibrated / "store")
    plan, bench = make_plan(suite, registry, store), Bench(registry, store)
    case = next(case for case in plan.cases if case.metric.name == "fidelity")
    (calibration,) = bench.measure(case).provenance["calibrated"].values()
    train, scored = (bench.artifacts.input(name, case.data) for name in ("train_acts", "acts"))
    raw = registry.adapters["made-up"].load(Ref.parse(case.subject[0].source.ref))
    assert calibration["threshold"] == calibrate(raw, train).calibration.threshold  # type: ignore[union-attr]
    assert calibration["threshold"] != calibrate(raw, scored).calibration.threshold  # type: ignore[union-attr]


def test_a_threshold_that_is_passed_is_used() -> None:
    g = torch.Generator().manual_seed(0)
    raw = {"W_enc": torch.randn(4, 6, generator=g), "W_dec": torch.randn(6, 4, generator=g)}
    level, x = torch.tensor(0.7), torch.randn(50, 4, generator=g)
    sae = fold(**raw, b_dec=torch.zeros(4), activation="batchtopk", k=2, threshold=level)
    same = fold(**raw, b_dec=torch.zeros(4), activation="jumprelu", threshold=level)
    assert sae.coder.calibrated
    assert torch.equal(sae.encode(x), same.encode(x))
