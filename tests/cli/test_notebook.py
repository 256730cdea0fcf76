"""`evaluate`: the same scores as a suite, for SAEs in memory and by ref."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from planted import planted_acts
from safetensors.torch import load_file

import saebench_canon
from saebench_canon import Acts, CanonError, evaluate
from saebench_canon.cli.main import main
from saebench_canon.cli.run import run as run_suite

DOC = torch.arange(600) * 20 // 600


def in_memory(folder: Path) -> SimpleNamespace:
    """The folder's ReLU SAE as a plain object, as its weights are written."""
    weights = load_file(folder / "sae_weights.safetensors")
    return SimpleNamespace(
        W_dec=weights["W_dec"],
        b_dec=weights["b_dec"],
        encode=lambda x: torch.relu(x @ weights["W_enc"] + weights["b_enc"]),
        decode=lambda codes: codes @ weights["W_dec"] + weights["b_dec"],
    )


def values(frame: object) -> dict[tuple[str, str, str], float]:
    rows = frame[frame["status"] == "measured"]  # type: ignore[index]
    return {(row.label, "+".join(row.subject), row.score): row.value for row in rows.itertuples()}


def test_it_gives_the_scores_of_a_suite(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["relu-w24-s0", "relu-w24-s1", "relu-w48-s0", "relu-w48-s1"]
    folders = {name: suite.parent / "saes" / name.removeprefix("relu-") for name in names}
    acts = Acts(planted_acts(), DOC)
    metrics = ["fidelity", "stitching", "seed_matching"]
    by_ref = evaluate({name: str(path) for name, path in folders.items()}, acts, metrics)
    assert run_suite([str(suite), "-q", "-k", "fidelity or stitching or seed_matching"]) == 0
    capsys.readouterr()
    assert main(["show", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    expected = {
        (row["label"], "+".join(row["subject"]), row["score"]): row["value"]
        for row in rows
        if row["status"] == "measured" and row["label"] in metrics
    }
    assert expected == values(by_ref)


def test_objects_in_memory_score_like_their_files(suite: Path) -> None:
    folders = {name: suite.parent / "saes" / name for name in ("w24-s0", "w24-s1", "w48-s0")}
    acts = Acts(planted_acts(), DOC)
    metrics = ["fidelity", "stitching"]
    by_ref = values(evaluate({name: str(path) for name, path in folders.items()}, acts, metrics))
    objects = {name: in_memory(path) for name, path in folders.items()}
    by_object = values(evaluate(objects, acts, metrics))
    alike = {key for key in by_ref if key[-1] != "encoder_alignment"}  # objects show no encoder
    assert alike == by_object.keys()
    for key, value in ((key, by_ref[key]) for key in alike):
        assert by_object[key] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_objects_that_differ_where_no_tensor_shows_it_are_measured_apart(suite: Path) -> None:
    sae = in_memory(suite.parent / "saes" / "w24-s0")

    def thresholded(theta: float) -> SimpleNamespace:
        def encode(x: torch.Tensor) -> torch.Tensor:
            codes = sae.encode(x)
            return codes * (codes > theta)

        return SimpleNamespace(**{**vars(sae), "encode": encode})

    frame = evaluate({"low": thresholded(0.5), "high": thresholded(0.51)}, planted_acts())
    l0 = {row.subject[0]: row.value for row in frame[frame["score"] == "l0"].itertuples()}
    assert l0["low"] > l0["high"]
    assert frame["id"].nunique() == 2


def test_it_leaves_the_number_of_threads_alone(suite: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    evaluate([str(suite.parent / "saes" / "w24-s0")], planted_acts(), "fidelity")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_without_activations_what_decoders_tell(suite: Path) -> None:
    saes = [str(suite.parent / "saes" / name) for name in ("w24-s0", "w48-s0")]
    frame = evaluate(saes, metrics=["stitching"])
    measured = set(frame[frame["status"] == "measured"]["score"])
    assert {"novel_share", "span_residual"} <= measured
    assert set(frame["status"]) == {"measured", "undefined"}


def test_settings_and_seed_reach_the_metric(suite: Path) -> None:
    saes = [str(suite.parent / "saes" / name) for name in ("w24-s0", "w48-s0")]
    frame = evaluate(
        saes, metrics=["stitching"], settings={"stitching": {"threshold": 0.2}}, seed=3
    )
    assert frame["settings"][0]["threshold"] == 0.2
    assert set(frame["seed"]) == {3}


@pytest.mark.parametrize(
    ("saes", "options", "sentence"),
    [
        ([], {}, "there are no SAEs"),
        (["saes/w24-s0"], {"metrics": ["fidelty"]}, "unknown metric 'fidelty'.*'fidelity'"),
        (["saes/w24-s0"], {"metrics": ["stitching"]}, "finds no pair or group"),
        (["saes/w24-s0"], {"settings": {"stitching": {}}}, "names 'stitching', which is not"),
        (["saes/w24-s0"], {"settings": {"fidelity": {"thr": 1}}}, "no setting 'thr'"),
        (["saes/w24-s9"], {}, "does not exist"),
        ([SimpleNamespace()], {}, "W_dec"),
        ("saes/w24-s0", {}, "must be a mapping or a list"),
        (["saes/w24-s0"], {"acts": [1, 2]}, "must be a tensor"),
        (["saes/w24-s0"], {"acts": torch.zeros(4, 8)}, "has d = 16"),
        (["saes/w24-s0"], {"threads": 0}, "'threads' must be at least 1, got 0"),
        (["saes/w24-s0"], {"metrics": ["fidelity"] * 2}, "have the label 'fidelity'"),
        (["saes/w24-s0"], {"metrics": ["fidelity", "stitching"]}, "'stitching' finds no pair"),
    ],
)
def test_mistakes_are_sentences(
    suite: Path, saes: object, options: dict[str, object], sentence: str
) -> None:
    acts = options.pop("acts", planted_acts(50))
    with pytest.raises(CanonError, match=sentence):
        evaluate(saes, acts, **options)  # type: ignore[arg-type]


def test_numbers_may_be_names(suite: Path) -> None:
    rows = saebench_canon.evaluate({768: "saes/w24-s0"}, torch.randn(50, 16))
    assert {tuple(subject) for subject in rows["subject"]} == {("768",)}
    with pytest.raises(CanonError, match="two SAEs have the same name"):
        saebench_canon.evaluate({1: "saes/w24-s0", "1": "saes/w48-s0"})


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool])
def test_activations_are_floating_point_numbers(suite: Path, dtype: torch.dtype) -> None:
    with pytest.raises(CanonError, match=f"floating point numbers, got .* of {dtype}"):
        saebench_canon.evaluate(["saes/w24-s0"], torch.ones(50, 16).to(dtype))


@pytest.mark.parametrize("acts", [torch.ones(50, 16).to_sparse(), torch.ones(50, 16).to("meta")])
def test_activations_are_dense_and_have_values(suite: Path, acts: torch.Tensor) -> None:
    with pytest.raises(CanonError, match="must be a dense tensor with values"):
        saebench_canon.evaluate(["saes/w24-s0"], acts)


def test_the_package_exports_what_plugins_are_written_with() -> None:
    for name in saebench_canon.__all__:
        assert callable(getattr(saebench_canon, name))
    assert not hasattr(saebench_canon, "nothing")
